"""Reasoning Gym's own verifiers: each kind of problem knows which answers are right.

They compare a bare answer, so the final answer of the text is found first. What they give for a
wrong one is not always nothing (0.01 for trying); only the full score is right.
"""

from __future__ import annotations

import json
import re
import warnings
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.graders.base import Reference, Verdict, judged, no_answer
from codepmp_ray.evaluation.graders.final_answer import MAX_CHARS, stated_answers
from codepmp_ray.evaluation.graders.numbers import find_number

_FULL_SCORE = 1.0 - 1e-9
_FRACTION = re.compile(r"(?<![\d./])-?\d+/0*[1-9]\d*(?![\d./])")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# Words of which one is the answer, as "Yes, it does." or "The answer is no." say it.
_PAIRS_OF_WORDS = (("yes", "no"), ("true", "false"))
_MARKUP = "*_`\"' \t\n"


@cache
def library() -> Any:
    """The module `reasoning_gym.factory`. Raises InputError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of a library that it uses
            import reasoning_gym  # noqa: F401 - the kinds register themselves
            from reasoning_gym import factory
    except ImportError as error:
        raise InputError(
            f"The task reasoning_gym needs the package reasoning-gym ({error}).",
            "Install it: pip install reasoning-gym -c constraints.txt",
        ) from error
    return factory


def grade_by_verifier(reference: Reference, completion: str) -> Verdict:
    """Whether the final answer of `completion` gets the full score of `reference.verifier`."""
    answer = bare_answer(reference.answer, completion)
    if answer is None:
        return no_answer("the text says no answer of the right form")
    assert reference.verifier, "problems of Reasoning Gym bring one"
    return judged(score(reference.verifier, answer) >= _FULL_SCORE, answer, reference)


def score(verifier: dict[str, Any], answer: str) -> float:
    """What the kind gives for a bare answer, between 0 and 1."""
    made_by = _dataset(verifier["kind"], json.dumps(verifier["parameters"]))
    return float(made_by.score_answer(answer, verifier["entry"]))


def bare_answer(reference: str, text: str) -> str | None:
    """The final answer of `text` in the form of `reference`: a number, a word, or any text.

    A number that is the reference's is given as that writes it ("7.0" for 7), since verifiers
    compare texts; yes and no, true and false likewise. A fraction is as the text writes it: some
    kinds ask for it in lowest terms.
    """
    text = text[-MAX_CHARS:]
    if all(map(_NUMBER.fullmatch, reference.split("/"))):
        found = find_number(text)
        if found and "/" in reference:
            return _as_written(text, found)
        pair = [found or "", reference]
        are_equal = all(map(_NUMBER.fullmatch, pair)) and len(set(map(Decimal, pair))) == 1
        return reference if are_equal else found
    for words in _PAIRS_OF_WORDS:
        if reference.casefold() in words:
            word = _stated_word(text, words)
            return reference if word == reference.casefold() else word
    stated = stated_answers(text)
    found = stated[0].text if stated else text.strip()
    if found == reference:
        return found
    bare = found.strip(_MARKUP)
    if not reference.endswith("."):
        bare = bare.removesuffix(".").strip(_MARKUP)
    return bare or None


def _as_written(text: str, number: str) -> str:
    stated = [one.text for one in stated_answers(text)]
    for place in (*stated, text):
        for written in reversed(_FRACTION.findall(place)):
            if Fraction(written) == Fraction(number):
                return written
    return number


def _stated_word(text: str, words: tuple[str, ...]) -> str | None:
    """The word that the text last calls its answer, else the one that it begins or ends with.

    "No dogs are cats." begins with another "no": what follows has to be a stop, or nothing.
    """
    one = "|".join(words)
    for stated in stated_answers(text):
        if match := re.match(rf"\W*({one})\b", stated.text, re.IGNORECASE):
            return match[1].casefold()
    alone = rf"[\W_]*({one})(?:[*_\"'`)]*[.,:;!\n]|[\W_]*\Z)"
    begins = re.match(alone, text, re.IGNORECASE)
    last_line = text.strip().rpartition("\n")[2]
    match = begins or re.fullmatch(rf"[\W_]*({one})[\W_]*", last_line, re.IGNORECASE)
    return match[1].casefold() if match else None


@cache
def _dataset(kind: str, parameters: str) -> Any:
    return library().create_dataset(kind, **json.loads(parameters))
