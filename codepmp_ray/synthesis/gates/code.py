"""Gates that look at the code of an answer."""

from __future__ import annotations

from codepmp_ray.config.synthesis import GatesConfig
from codepmp_ray.synthesis.answers import find_code
from codepmp_ray.synthesis.gates.stubs import is_stub
from codepmp_ray.synthesis.gates.text import refusal
from codepmp_ray.synthesis.gates.verdict import Rejection, of_field
from codepmp_ray.synthesis.model_tests import tests_problem


def answer(side: str, text: str, language: str, gates: GatesConfig) -> Rejection | None:
    """`side` declines, shows no code, or code that does not parse. A reference is held to what the
    chosen side is held to."""
    held = "chosen" if side == "reference" else side
    found = find_code(text, language)
    if found is None and (declined := refusal(side, text, gates)):
        return declined
    if gates.code not in ("both", held):
        return None
    if found is None:
        return of_field(side, "no_code", f"no code block in {language}")
    if not found.parses:
        return of_field(side, "parse_error", f"its code block is not valid {language}")
    if gates.stubs in ("both", held) and is_stub(found.text, language):
        return of_field(side, "stub", "its functions are left empty")
    return None


def model_tests(field: str, text: str, gates: GatesConfig) -> Rejection | None:
    """The model declines to write tests, or what it wrote tests nothing."""
    problem = tests_problem(text)
    if problem is None:
        return None
    return refusal(field, text, gates) or of_field(field, "no_code", problem)
