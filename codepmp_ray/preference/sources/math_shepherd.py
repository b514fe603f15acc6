"""MathShepherd (Wang et al. 2023b) as pairs: solutions without a wrong step against failed ones.

A row is one solution: `input` is question and steps, each step ended by the tag "ки"; `label` is
the same text with "+" or "-" in the tag's place. A step's label says whether the right answer can
still be reached, and that of the last step whether it was. Section 4.1.2 derives MathShepherd-pair
without saying how; here chosen has "+" at every step, rejected "-" at the last one. Solutions in
between (right in the end, with a doubtful step) are on neither side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import (
    Built,
    Numbered,
    Reject,
    Row,
    Unusable,
    make_pair,
    pair_up,
    text_cell,
)
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

COLUMNS = ({"input", "label"},)
TAG = "ки"
_FIRST_STEP = re.compile(r"\s*\bStep 1:")


@dataclass
class _Question:
    """Solutions by their text, with the number of the row that they come from."""

    text: str
    right: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)


def build(rows: Iterable[Numbered], config: DataSourceConfig) -> Iterator[Built]:
    """Pairs by question; every solution that is in none of them leaves with a reason.

    Questions come in the order of their hashes, which mixes GSM8K's with MATH's whatever the
    file's order. All solutions are held in memory until the last one is read.
    """
    questions: dict[str, _Question] = {}
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        index, row = item
        try:
            text, solution, is_right = read_solution(row)
        except Unusable as error:
            yield Reject(index, error.reason, error.detail)
            continue
        question = questions.setdefault(stable_id(text), _Question(text))
        if solution in question.right or solution in question.wrong:
            yield Reject(index, RejectReason.EXACT_DUPLICATE, "the question has it already")
        else:
            (question.right if is_right else question.wrong)[solution] = index
    for origin in sorted(questions):
        yield from _pairs(origin, questions.pop(origin), config)


def _pairs(origin: str, question: _Question, config: DataSourceConfig) -> Iterator[Built]:
    right, wrong = question.right, question.wrong
    rest = {index: None for side in (right, wrong) for index in side.values()}
    if not right or not wrong:
        for index in rest:
            detail = f"{len(right)} right and {len(wrong)} wrong solutions of its question"
            yield Reject(index, RejectReason.NO_CONTRAST, detail)
        return
    for chosen, rejected in pair_up(list(right), list(wrong), config.max_pairs_per_problem):
        rest.pop(right[chosen], None)
        rest.pop(wrong[rejected], None)
        yield make_pair(question.text, chosen, rejected, config, problem_id=origin)
    for index in rest:
        detail = f"max_pairs_per_problem={config.max_pairs_per_problem}"
        yield Reject(index, RejectReason.OVER_MAX_PAIRS, detail)


def read_solution(row: Row) -> tuple[str, str, bool]:
    """(question, solution without tags, all steps right or last one wrong). Raises Unusable."""
    tagged, labels = text_cell(row, "input"), text_cell(row, "label")
    found = _FIRST_STEP.search(tagged)
    if not found or not tagged[: found.start()].strip():
        raise Unusable(RejectReason.PROMPT_EMPTY, "input has no question before 'Step 1:'")
    *steps, tail = tagged.split(TAG)
    position, signs = 0, ""
    for step in steps:
        position += len(step)
        signs += labels[position : position + 1]
        position += 1
    if not signs or tail.strip() or len(signs) != len(steps) or set(signs) - {"+", "-"}:
        raise Unusable(
            RejectReason.BAD_LABEL, f"{len(steps)} steps with the labels {signs!r} in their places"
        )
    if "-" in signs and signs[-1] == "+":
        raise Unusable(RejectReason.UNCLEAR_LABEL, f"labels {signs}: right after a wrong step")
    lines = "".join(steps)[found.start() :].splitlines()
    solution = "\n".join(line.rstrip() for line in lines).strip()
    return tagged[: found.start()].strip(), solution, signs[-1] == "+"
