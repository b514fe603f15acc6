"""Which rows become pairs. A gate returns the Rejection of what it refuses, or None.

The order is from the plainest defect to the subtlest, so that a row's reason names its worst one.
"""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.synthesis import GatesConfig
from codepmp_ray.synthesis.gates import code, sides, text
from codepmp_ray.synthesis.gates.contamination import contaminated
from codepmp_ray.synthesis.gates.description import description
from codepmp_ray.synthesis.gates.text import clean
from codepmp_ray.synthesis.gates.verdict import Rejection, of_field
from codepmp_ray.synthesis.thoughts import split_thought

__all__ = ["Rejection", "clean", "contaminated", "judge_pair", "judge_sides", "judge_text"]


def judge_text(
    field: str,
    value: str,
    finish_reason: str,
    num_tokens: int,
    language: str,
    gates: GatesConfig,
    *,
    snippet: str = "",
    asked: str = "",
) -> Rejection | None:
    """One text that a model wrote: `field` is a hop's, with "description" for its first.

    A thought before it is not looked at. `snippet` is the code and `asked` the message that a
    description answers.
    """
    value, is_thought = split_thought(value)
    if is_thought:
        return of_field(field, "unclosed_thought", f"{num_tokens} tokens, {finish_reason}")
    judged = (
        text.not_text(field, value)
        or text.empty(field, value, num_tokens)
        or text.cut_off(field, finish_reason, num_tokens)
        or text.repetitive(field, value, gates)
    )
    if judged is None and field == "description":
        return text.refusal(field, value, gates) or description(value, snippet, asked, gates)
    return judged or _judge_content(field, value, language, gates)


def _judge_content(field: str, value: str, language: str, gates: GatesConfig) -> Rejection | None:
    if field in ("tests", "weak_tests"):
        return code.model_tests(field, value, gates)
    return code.answer(field, value, language, gates)


def judge_sides(sides: dict[str, str], language: str, gates: GatesConfig) -> Rejection | None:
    """Both sides, "chosen" and "rejected", alone and together, where no model wrote them."""
    for side, value in sides.items():
        if refused := judge_text(side, value, "stop", 0, language, gates):
            return refused
    return judge_pair({**sides, "chosen_num_tokens": None, "rejected_num_tokens": None}, gates)


def judge_pair(row: dict[str, Any], gates: GatesConfig) -> Rejection | None:
    """Both sides together. Lengths are tokens, or characters where no model wrote a side."""
    chosen, rejected = row["chosen"], row["rejected"]
    lengths, unit = (row["chosen_num_tokens"], row["rejected_num_tokens"]), "tokens"
    if None in lengths:
        lengths, unit = (len(chosen), len(rejected)), "characters"
    return (
        sides.equal(chosen, rejected)
        or sides.near_equal(chosen, rejected, gates)
        or sides.length_ratio(*lengths, unit, gates)
        or sides.like_reference(row.get("reference"), chosen, rejected, gates)
    )
