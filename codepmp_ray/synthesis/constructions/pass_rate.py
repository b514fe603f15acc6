"""Pass rate (after AceCoder, arXiv 2502.01718): how many tests an answer passes, not whether all.

Both models write tests of the description, so that neither one's misreading decides alone. The
margin of a pair is the difference of the two rates.
"""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.execution_feedback import ExecutionFeedback
from codepmp_ray.synthesis.rows import Row


class PassRate(ExecutionFeedback):
    def hops(self) -> dict[Hop, Role]:
        answers: dict[Hop, Role] = {"chosen": "strong", "rejected": "weak"}
        tests: dict[Hop, Role] = {"tests": "strong", "weak_tests": "weak"}
        return {"describe": self.config.describer, **tests, **answers}

    def question(self, hop: Hop, row: Row) -> str:
        return super().question("tests" if hop == "weak_tests" else hop, row)
