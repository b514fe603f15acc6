"""Webpage (Figure 6(b)): people wrote both sides, their readers' scores order them.

No model is asked; `synthesis.web` reads the threads. The paper shows that such pairs teach less
than those from source code.
"""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.rows import Row


class WebPairs(StrongWeak):
    def hops(self) -> dict[Hop, Role]:
        return {}

    def prompt(self, row: Row) -> str:
        return row["question"]
