"""Numbers in words: "two hundred and fifty", "eight cookies", "three and a half"."""

from __future__ import annotations

import re
from fractions import Fraction

_VALUES = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_WORD = rf"(?:{'|'.join([*_VALUES, 'hundred', *_SCALES])})\b"
# What may follow is a unit; these make another number of it, or no number.
_NO_UNIT = (
    r"(?:of|or|and|to|times|plus|minus|point|over|more|less|fewer|that|which|who|by|per|halves|half"
    r"|dozen|squared|cubed|divided|multiplied|[a-z]*(?:th|ths|thirds?|quarters?))\b"
)
_SPOKEN = re.compile(
    rf"(?:(?:about|approximately|around|exactly|only|just)\s+)?({_WORD}(?:[\s-]+(?:and\s+)?{_WORD})*)"
    rf"(\s+and\s+(?:a|one)\s+half\b)?(?:\s+(?!{_NO_UNIT})[a-z]+){{0,2}}[\s.!]*"
)


def spoken_value(text: str) -> Fraction | None:
    """The value of a number in English words that is all of `text`, but for a unit."""
    match = _SPOKEN.fullmatch(text.strip().casefold())
    if match is None:
        return None
    total = group = 0
    for word in re.findall(r"\b(?!and\b)[a-z]+", match[1]):
        value, rest = _VALUES.get(word), group % 100
        if word in _SCALES:
            total, group = total + group * _SCALES[word], 0
        elif value is None:
            group = (group or 1) * 100
        elif rest and not (value < 10 and rest >= 20 and rest % 10 == 0):
            return None  # "two five"
        else:
            group += value
    return total + group + (Fraction(1, 2) if match[2] else Fraction(0))
