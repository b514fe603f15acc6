"""Answers that are one number, as GSM8K's: exact fractions, so that 1/2, 0.5 and 50/100 are one.

A number counts only if nothing but words and units stands around it: "6 sqrt(2)", "2, -1", "12 or
13" and "7k" are no numbers.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from codepmp_ray.evaluation.graders.base import Reference, Verdict, judged, no_answer
from codepmp_ray.evaluation.graders.final_answer import (
    MAX_CHARS,
    claim,
    own_turn,
    stated_answers,
)
from codepmp_ray.evaluation.graders.formulas import formula, parsed
from codepmp_ray.evaluation.graders.notation import has_digit, readable, tidy
from codepmp_ray.evaluation.graders.numerals import spoken_value

_MAX_DECIMALS, _MAX_CHARS = 9, 400
_LITERAL = (
    r"(?:\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d|,\d)"  # 1.234,50
    r"|\d{1,3}(?:\.\d{3}){2,}(?!\d|\.\d)"  # 1.234.567
    r"|\d+,\d{1,2}(?!\d|,\d)"  # 2,5
    r"|(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d|,\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?"
    r"|\.\d+)"
)
_DECIMAL_COMMA = re.compile(r"\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}|\d+,\d{1,2}")
_PLAIN = re.compile(rf"([-+]?)\s*(?:(\d+)\s+(?=\d+\s*/))?({_LITERAL})(?:\s*/\s*({_LITERAL}))?")
_IN_TEXT = re.compile(rf"(?:(?<![\w)\]}}.])-\s?)?{_LITERAL}(?:\s*/\s*{_LITERAL})?")
_FRACTION = re.compile(r"\\frac\s*\{(\d+)\}\s*\{(\d+)\}")
_REPEATING = re.compile(r"(-?)\s*(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_HANGS_ON = re.compile(r"\s*[\^\\\u221a]|_|[a-zA-Z\u03c0](?![a-zA-Z])")
_UNKNOWN = re.compile(
    r"\b(?:not (?:enough|possible)|can ?not|can't|un(?:known|clear|determined|defined)|impossible"
    r"|insufficient|inconsistent)\b|_{3}",
    re.IGNORECASE,
)
_CUT_OFF = re.compile(
    r"(?::|,|\b(?:a|an|and|by|for|from|get|is|of|or|the|to|up|we|with))\s*\Z", re.IGNORECASE
)
_EQUALS = re.compile(r"(?<![<>!=\u2264\u2265])=(?!=)|\u2248|\\approx(?![a-z])")
_IN_TWO_UNITS = re.compile(
    r"\W*\d+ [a-zA-Z]{1,9},?(?: and)? \d+ [a-zA-Z]{1,9}\W*"
)  # 2 hours 40 minutes
_WHICH_IS = re.compile(r",? which (?:is|equals|gives|makes) ")
_NAME = re.compile(r"[a-zA-Z]\w*\s*\([^()]*\)$|[a-zA-Z]_\{?\w+\}?$")  # f(3), x_1
_VARIABLE = re.compile(r"(?<![a-zA-Z'])[b-zB-Z](?![a-zA-Z])|\\(?!frac|times|cdot|div|text|%)")


def grade_number(reference: Reference, completion: str) -> Verdict:
    """Whether the last number that `completion` calls its answer is the reference.

    Where it calls none so, its last number counts, unless the text stops in the middle.
    """
    found = find_number(completion)
    if found is None:
        return no_answer("no number in the text that stands for itself")
    expected = stated_number(reference.answer)
    equal = expected is not None and same_value(expected, Fraction(found))
    return judged(equal, found, reference)


def find_number(text: str) -> str | None:
    """The final number of `text` in plain form ("-1500.5", "1/3"), or None.

    None too where what it calls its answer is several numbers, a formula, or "not known".
    """
    stated_ones = stated_answers(text)
    for stated in stated_ones:
        if stated.runs_on:
            continue
        value = stated_number(stated.text, stated.is_boxed)
        if value is not None:
            return written(value)
        said = claim(stated.text)
        if not said or has_digit(said) or _UNKNOWN.search(said):
            return None
    if stated_ones and not stated_ones[0].runs_on and not has_digit(stated_ones[0].after):
        return None
    own = own_turn(readable(text[-MAX_CHARS:]))
    value = None if _CUT_OFF.search(own) else _last_number(own)
    return None if value is None else written(value)


@lru_cache(maxsize=1 << 14)
def stated_number(text: str, in_math: bool = False) -> Fraction | None:
    """The number that a stated answer is, whatever words and units stand around it.

    Args:
        in_math: a formula or box, where letters by themselves are variables, not units.
    """
    for part in _WHICH_IS.split(text if in_math else claim(text)):
        *sides, last = _EQUALS.split(part)
        if any(map(_is_formula, sides)):
            return None
        said = [side for side in (*sides, last) if has_digit(side)]
        if len(said) > 1 and _IN_TWO_UNITS.fullmatch(said[-1]):
            said.pop()
        last = said[-1] if said else ""
        value = _value(formula(last, in_math)) if last else spoken_value(part)
        if value is not None:
            return value
    return None


def same_value(left: Fraction, right: Fraction) -> bool:
    """Equal, or equal to six decimal places where one of them had to be rounded."""
    difference = abs(left - right)
    return not difference or (2_000_000 * difference <= 1 and 100_000 * difference <= abs(right))


def written(value: Fraction) -> str:
    """One form for each value: "0.5" for 1/2, and a fraction where the decimals have no end."""
    if pow(10, value.denominator.bit_length(), value.denominator):
        return str(value)
    # What is past nine decimal places is the noise of a floating-point calculation.
    scaled = round(value * 10**_MAX_DECIMALS)
    whole, decimals = divmod(abs(scaled), 10**_MAX_DECIMALS)
    text = f"{whole}.{decimals:0{_MAX_DECIMALS}}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


def _is_formula(side: str) -> bool:
    """Whether a side of an equation is more than a name or a calculation: 3x - y + 13, x^2."""
    side = re.sub(r"(?<=\d) ?x ?(?=\d)", "*", _NAME.sub("", tidy(side)))
    return has_digit(side) and _VARIABLE.search(side) is not None


def plain_value(text: str) -> Fraction | None:
    """The value of a number that is written plainly, and is all of `text`; no parser is asked."""
    plain = _FRACTION.sub(r" \1/\2", text).strip()
    match = _PLAIN.fullmatch(plain) if len(plain) < _MAX_CHARS else None
    if match is None:
        return None
    sign, whole, *parts = match.groups()
    upper, lower = (_literal(part) if part else Fraction(1) for part in parts)
    value = int(whole or 0) + upper / lower if lower else None
    return -value if sign == "-" and value is not None else value


def _value(latex: str) -> Fraction | None:
    """The value of a number or calculation."""
    if (value := plain_value(latex)) is not None:
        return value
    if match := _REPEATING.fullmatch(latex.strip()):
        sign, whole, fixed, period = match.groups()
        once = int(f"0{whole}{fixed}{period}") - int(f"0{whole}{fixed}")
        return Fraction(-once if sign else once, (10 ** len(period) - 1) * 10 ** len(fixed))
    # Ratios, bases and numbers side by side are no calculations, whatever a parser makes of them.
    is_other = not has_digit(latex) or re.search(r"[:_']|\d\s+\d", latex)
    expression = None if is_other else parsed(latex)
    if expression is None or not getattr(expression, "is_number", False):
        return None
    value = expression.doit()
    if value.is_Rational:
        return Fraction(int(value.p), int(value.q))
    return Fraction(str(value)) if value.is_Float else None


def _literal(text: str) -> Fraction:
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    return Fraction(text.replace(",", ""))


def _last_number(text: str) -> Fraction | None:
    """The last number of running text, unless a root, a power or a letter hangs on to it."""
    lines = [line for line in text.splitlines() if has_digit(line)]
    line = _FRACTION.sub(r" \1/\2", tidy(lines[-1])) if lines else ""
    match = next(reversed(list(_IN_TEXT.finditer(line))), None)
    if match is None or _HANGS_ON.match(line, match.end()):
        return None
    if re.search(r"(?:sqrt|root|[\^_\u221a])\s*[({]?$", line[: match.start()]):
        return None
    return _value(match[0])
