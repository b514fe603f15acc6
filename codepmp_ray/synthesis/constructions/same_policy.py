"""Same policy (after POLAR, arXiv 2507.05197): which answer has the reference's author?

One model answers a description twice, another one once. The first answer stands in the prompt as
the reference, the second one is chosen.
"""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.prompts import reference_prompt
from codepmp_ray.synthesis.rows import Row


class SamePolicy(StrongWeak):
    def hops(self) -> dict[Hop, Role]:
        policy = self.config.policy
        other: Role = "weak" if policy == "strong" else "strong"
        answers: dict[Hop, Role] = {"reference": policy, "chosen": policy, "rejected": other}
        return {"describe": self.config.describer, **answers}

    def prompt(self, row: Row) -> str:
        """What all three were asked, and the reference, which none of them saw."""
        return reference_prompt(super().prompt(row), row["reference"], self.config.prompts)

    def question(self, hop: Hop, row: Row) -> str:
        is_answer = hop in ("reference", "chosen", "rejected")
        return super().prompt(row) if is_answer else super().question(hop, row)
