"""Answers in LaTeX, as MATH's: what the text says last is its answer, in a box or outside one."""

from __future__ import annotations

import re

from codepmp_ray.evaluation.graders.base import Reference, Verdict, judged, no_answer
from codepmp_ray.evaluation.graders.equality import same_answer
from codepmp_ray.evaluation.graders.final_answer import MAX_CHARS, own_turn, stated_answers
from codepmp_ray.evaluation.graders.formulas import MATH, joined
from codepmp_ray.evaluation.graders.notation import has_digit, readable

_ALSO = re.compile(r"\s*,?\s*(?:and|or)?\s*", re.IGNORECASE)
_NOT = re.compile(r"\s*,?\s*(?:and|but)?\s*not\s*", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z$\\])")


def grade_latex(reference: Reference, completion: str) -> Verdict:
    """Whether the final answer of `completion` equals the reference: 1/2 equals 0.5, x + 1 equals
    1 + x, sets and intervals compare by their members, words by their letters.

    Where the text calls nothing its answer, its last formula or its last line counts.
    """
    for stated in stated_answers(completion):
        if not stated.runs_on:
            equal, answer = same_answer(reference.answer, stated.text, stated.is_boxed)
            return judged(equal, answer, reference)
    last, in_math = _last_words(completion)
    is_sentence = len(last.split()) > 3 and not has_digit(last) and "\\" not in last
    if not last or (is_sentence and not in_math):
        return no_answer("no box, no formula and no answer in the text")
    equal, answer = same_answer(reference.answer, last, in_math)
    return judged(equal, answer, reference)


def _last_words(text: str) -> tuple[str, bool]:
    """(the last formula of a text's last line, or its last sentence; whether it is a formula).

    Of "$x = 3$ or $x = -2$" neither is the last one: they are a list.
    """
    lines = [line for line in own_turn(readable(text[-MAX_CHARS:])).splitlines() if line.strip()]
    if not lines:
        return "", False
    found = list(MATH.finditer(lines[-1]))
    while len(found) > 1 and _NOT.fullmatch(lines[-1][found[-2].end() : found[-1].start()]):
        found.pop()
    if found:
        first = len(found) - 1
        while first and _ALSO.fullmatch(lines[-1][found[first - 1].end() : found[first].start()]):
            first -= 1
        has_word = first < len(found) - 1 and re.search(
            r"\w", lines[-1][found[-2].end() : found[-1].start()]
        )
        return joined(found[first:] if has_word else found[-1:]), True
    return _SENTENCE.split(lines[-1])[-1].strip(), False
