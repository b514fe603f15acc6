"""Questions with labelled solutions, as of GSM8K: right against wrong solutions of one question.

A row holds a question and a list of its solutions, each with a text and a truth value. Pairs of one
question are held out together, and there are at most `max_pairs_per_problem` of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import (
    Built,
    Numbered,
    Reject,
    Unusable,
    checked_text,
    make_pair,
    pair_up,
    text_cell,
)
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

_LISTS = ("outputs", "candidates", "solutions")
_TEXTS = ("response", "text", "solution")
_LABELS = ("label", "correct", "is_correct")
COLUMNS = tuple({"question", name} for name in _LISTS)


def build(rows: Iterable[Numbered], config: DataSourceConfig) -> Iterator[Built]:
    """Pairs of each question; a solution without text or label is rejected by itself."""
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        index, row = item
        sides: dict[bool, list[str]] = {True: [], False: []}
        try:
            question = text_cell(row, "question").strip()
            if not question:
                raise Unusable(RejectReason.PROMPT_EMPTY, "question is missing or blank")
            solutions = _solutions(row)
        except Unusable as error:
            yield Reject(index, error.reason, error.detail)
            continue
        for number, solution in enumerate(solutions):
            try:
                text, label = _read(solution)
            except Unusable as error:
                yield Reject(index, error.reason, f"solution {number}: {error.detail}")
            else:
                sides[label].append(text)
        right, wrong = (list(dict.fromkeys(sides[label])) for label in (True, False))
        # A text that is labelled both ways teaches nothing.
        both = set(right) & set(wrong)
        right, wrong = ([text for text in side if text not in both] for side in (right, wrong))
        if not right or not wrong:
            found = f"{len(right)} right and {len(wrong)} wrong distinct solutions"
            yield Reject(index, RejectReason.NO_CONTRAST, found)
            continue
        for chosen, rejected in pair_up(right, wrong, config.max_pairs_per_problem):
            yield make_pair(question, chosen, rejected, config, problem_id=stable_id(question))


def _solutions(row: dict[str, Any]) -> list[Any]:
    for name in _LISTS:
        if name in row:
            if isinstance(row[name], list):
                return row[name]
            raise Unusable(
                RejectReason.NOT_TEXT, f"{name} is {type(row[name]).__name__}, not a list"
            )
    raise Unusable(RejectReason.NO_CONTRAST, f"none of {', '.join(_LISTS)}")


def _read(solution: Any) -> tuple[str, bool]:
    if not isinstance(solution, dict):
        raise Unusable(RejectReason.NOT_TEXT, f"is {type(solution).__name__}, not an object")
    name = next((name for name in _TEXTS if name in solution), _TEXTS[0])
    text = checked_text(solution.get(name), name).strip()
    if not text:
        raise Unusable(RejectReason.EMPTY, f"{name} is blank")
    label = next((solution[name] for name in _LABELS if name in solution), None)
    # 0 and 1 equal False and True; fractions are no truth values.
    if label not in (True, False):
        raise Unusable(RejectReason.BAD_LABEL, f"label is {label!r}, not true or false")
    return text, bool(label)
