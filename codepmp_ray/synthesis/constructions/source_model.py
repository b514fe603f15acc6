"""Source Code & model: the snippet itself is chosen, a model's answer to its description rejected.

The source is put into a code block as a model writes it, so that the form does not tell the label.
"""

from __future__ import annotations

from codepmp_ray.config.engines import Role
from codepmp_ray.synthesis.answers import as_code_block
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.rows import Row


class SourceModel(StrongWeak):
    def hops(self) -> dict[Hop, Role]:
        return {"describe": self.config.describer, "rejected": self.config.source_opponent}

    def prepare(self, row: Row) -> Row:
        code = as_code_block(row["code"], row["language"])
        return {**row, "chosen": code, "chosen_num_tokens": None, "chosen_finish_reason": None}
