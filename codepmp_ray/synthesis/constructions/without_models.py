"""No model is asked: `synthesis.web` takes both sides from threads ("Webpage", Figure 6(b), which
teaches less than source code, as the paper shows), `synthesis.continuations` from snippets,
`synthesis.history` from commits.
"""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.rows import Row


class WithoutModels(StrongWeak):
    def hops(self) -> dict[Hop, Role]:
        return {}

    def prompt(self, row: Row) -> str:
        return row["prompt"]
