"""Which final answers are one vote: those that say the same, as the number grader sees it.

Graders store a final answer in a form of its own, and files of pools one as somebody wrote it: 0.5,
1/2 and 2/4 are one number, and so are 10,000 and 10{,}000. Numbers that are equal to six decimal
places are equal, as in `graders.equality`. Formulas are equal where they are written alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|[ \u2009\u202f\u00a0])(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?: ?/ ?(\d+(?:\.\d*)?))?")
_AROUND = " \t\n$"
_MAX_DIGITS = 300


def answer_groups(answers: Sequence[str | None]) -> list[int]:
    """Equal numbers for equal answers to one problem. What has none agrees with nobody."""
    numbers: dict[object, int] = {}
    keys = [(i,) if answer is None else _key(answer) for i, answer in enumerate(answers)]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _key(answer: str) -> object:
    """What is equal for equal answers: a number, or the text."""
    text = answer.strip(_AROUND).rstrip(_AROUND + ".").replace("\u2212", "-").replace("\u2013", "-")
    text = _THOUSANDS.sub("", _FRACTION.sub(r"\1/\2", text))
    found = _NUMBER.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if found is None or (found[3] is not None and not Fraction(found[3])):
        return answer.strip()
    value = Fraction(found[2]) / Fraction(found[3] or 1)
    return round(-value if found[1] == "-" else value, 6)
