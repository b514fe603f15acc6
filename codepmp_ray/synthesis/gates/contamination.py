"""The gate against evaluation sets: descriptions and answers, as `corpus.decontamination` has it.

The description stands for the prompt, whose other words are our own template. An answer is accused
by the functions that it defines, a description by those that it mentions.
"""

from __future__ import annotations

from codepmp_ray.corpus.decontamination import (
    EvaluationIndex,
    defined_names,
    find_contamination,
    mentioned_names,
)
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates.verdict import Rejection


def contaminated(field: str, text: str, index: EvaluationIndex) -> Rejection | None:
    """`field` is "description", "chosen" or "rejected"; the detail begins "set: field: "."""
    names = mentioned_names(text) if field == "description" else defined_names(text)
    found = find_contamination(text, index, names)
    if found is None:
        return None
    detail = f"{found.evaluation_set}: {field}: {found.what}"
    return Rejection(RejectReason.CONTAMINATED, detail)
