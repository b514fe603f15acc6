"""6.7B & 1.3B, the paper's choice: two models answer the same description."""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.prompts import answer_prompt, describe_prompt, label_prompt
from codepmp_ray.synthesis.rows import Row


class StrongWeak:
    def __init__(self, config: SynthesisConfig) -> None:
        self.config = config

    def hops(self) -> dict[Hop, Role]:
        return {"describe": self.config.describer, "chosen": "strong", "rejected": "weak"}

    def prepare(self, row: Row) -> Row:
        return row

    def prompt(self, row: Row) -> str:
        return answer_prompt(row["description"], row["language"], self.config.prompts)

    def question(self, hop: Hop, row: Row) -> str:
        if hop == "describe":
            return describe_prompt(row["code"], row["language"], self.config.prompts)
        if hop == "label":
            return label_prompt(row["code"], row["language"], self.config.prompts)
        return self.prompt(row)
