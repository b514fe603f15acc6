"""Graders: whether the final answer of a text is the right one. Pure functions, by name.

A grader gets a Reference and a text and gives a Verdict. It may raise, hang or crash:
`graders.pool` runs it where that costs the one answer only. Code is executed instead, by
`evaluation.sandbox`.
"""

from collections.abc import Callable

from codepmp_ray.evaluation.graders import equality, verifiers
from codepmp_ray.evaluation.graders.base import Grader, GraderName, Reference, Verdict
from codepmp_ray.evaluation.graders.choices import grade_choice
from codepmp_ray.evaluation.graders.latex import grade_latex
from codepmp_ray.evaluation.graders.numbers import grade_number

GRADERS: dict[GraderName, Grader] = {
    "number": grade_number,
    "latex": grade_latex,
    "choice": grade_choice,
    "reasoning_gym": verifiers.grade_by_verifier,
}
# What a grader has to load once; the first answer is not to pay for it.
LIBRARIES: dict[GraderName, Callable[[], object]] = {
    "number": equality.load_library,
    "latex": equality.load_library,
    "reasoning_gym": verifiers.library,
}

__all__ = ["GRADERS", "LIBRARIES", "Grader", "GraderName", "Reference", "Verdict"]
