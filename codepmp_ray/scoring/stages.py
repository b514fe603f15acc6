"""Stages before the reward: which candidates it chooses among, and what the others are told.

What a stage looks at is in `evaluation.stages`. Where all that have come so far fall out at one
stage, the later ones are not asked and the reward chooses among these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Stage = Literal["extract", "parse", "run"]
STAGES: tuple[Stage, ...] = ("extract", "parse", "run")


@dataclass(frozen=True)
class AnswerTests:
    """What a program has to pass.

    Attributes:
        entry_point: name of the function that an answer defines.
        test: source that defines `check(candidate)`, which raises unless the function is right.
        setup: source that comes first: imports and helpers, or the stub that answers complete.
    """

    entry_point: str
    test: str
    setup: str = ""


@dataclass(frozen=True)
class StagesAsked:
    """Stages in their order; "run" needs tests, the others use them where they are there."""

    names: tuple[Stage, ...]
    tests: AnswerTests | None = None


@dataclass(frozen=True)
class Survivors:
    """What came of the stages.

    Attributes:
        fell_at: for each candidate the stage at which it fell out, None for those that came through
            all.
        all_fell_at: the stage at which nothing was left.
    """

    fell_at: Sequence[Stage | None]
    all_fell_at: Stage | None = None

    @property
    def places(self) -> list[int]:
        """Of the candidates among which the reward chooses."""
        return [place for place, stage in enumerate(self.fell_at) if stage == self.all_fell_at]
