"""What a construction decides: which questions are asked, of whom, and with which words."""

from __future__ import annotations

from typing import Literal, Protocol

from codepmp_ray.config.engines import Role
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.synthesis.rows import Row

Hop = Literal["describe", "tests", "weak_tests", "reference", "chosen", "rejected", "label"]


class Construction(Protocol):
    """One way from a snippet to two sides. Methods are pure and never raise because of a row."""

    def __init__(self, config: SynthesisConfig) -> None: ...

    def hops(self) -> dict[Hop, Role]:
        """The questions in an order in which they can be asked, and the role that answers each.

        `describe` is the first one. A side without a hop is what `prepare` put into the row.
        """
        ...

    def prepare(self, row: Row) -> Row:
        """The snippet's row with everything that needs no model, before the first hop."""
        ...

    def prompt(self, row: Row) -> str:
        """The pair's prompt: what the chosen side was asked."""
        ...

    def question(self, hop: Hop, row: Row) -> str:
        """The user message of `hop`, for a row that earlier hops have filled."""
        ...
