"""Des-Clip: the rejected side answers a description whose end is missing."""

from __future__ import annotations

from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.prompts import answer_prompt
from codepmp_ray.synthesis.rows import Row


class DescriptionClip(StrongWeak):
    def question(self, hop: Hop, row: Row) -> str:
        if hop == "rejected":
            clipped = clip(row["description"], self.config.clip_fraction)
            return answer_prompt(clipped, row["language"], self.config.prompts)
        return super().question(hop, row)


def clip(description: str, fraction: float) -> str:
    """Without the last `fraction` of the words: at least one word less, but never none."""
    words = description.split()
    num_clipped = max(1, round(len(words) * fraction))
    return " ".join(words[: max(1, len(words) - num_clipped)])
