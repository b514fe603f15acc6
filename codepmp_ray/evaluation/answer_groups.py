"""Which final answers are one vote: those that say the same, as the number grader sees it.

Graders store a final answer in a form of its own, and files of pools one as somebody wrote it: 0.5,
1/2 and 2/4 are one number, and so are 10,000 and 10{,}000. Numbers that are equal to six decimal
places are equal, as in `graders.equality`. Formulas are equal where they are written alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from codepmp_ray.evaluation.graders.notation import readable, tidy
from codepmp_ray.evaluation.graders.numbers import plain_value


def answer_groups(answers: Sequence[str | None]) -> list[int]:
    """Equal numbers for equal answers to one problem. What has none agrees with nobody."""
    numbers: dict[object, int] = {}
    keys = [(i,) if answer is None else _key(answer) for i, answer in enumerate(answers)]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


@lru_cache(maxsize=1 << 16)
def _key(answer: str) -> object:
    """What is equal for equal answers: a number, or the text."""
    value = plain_value(tidy(readable(answer)).strip("$ ").removesuffix("."))
    return answer.strip() if value is None else round(value, 6)
