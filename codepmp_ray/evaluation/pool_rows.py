"""Rows of candidate pools in files: which answers a row holds, to which question.

Known shapes, told apart by their columns:
- a list of answers (`candidates`, `outputs`, `answers`, `responses`, `completions`, ...), each a
  text or an object with a text, perhaps a label and a model; labels may be a list of their own;
- one answer in a row (`completion`, `response`, ...);
- a column for each model, holding `solution` and `is_correct` (OpenAI's GSM8K solutions).

Beside a pool stand tables: rewards and grades that other jobs wrote about its candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from codepmp_ray.errors import InputError
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Reject, Row, Unusable, checked_text
from codepmp_ray.reject_reasons import RejectReason

_IDS = ("problem_id", "task_id", "unique_id", "idx", "id")
_QUESTIONS = ("question", "problem", "prompt")
_REFERENCES = ("reference", "gold", "gt", "ground_truth")
_LISTS = (
    *("candidates", "outputs", "answers", "responses", "response", "completions", "completion"),
    *("solutions", "samples", "generations"),
)
_TEXTS = ("text", "completion", "response", "solution", "output", "answer")
_LABELS = ("label", "correct", "is_correct", "passed")
_FINAL_LISTS = ("pred", "preds", "final_answers")
_LABEL_LISTS = ("labels", "score", *_LABELS)
_MODELS = ("model", "generator")
_CANDIDATE_IDS = ("candidate_id",)
Scores = list[float | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as a file has it.

    Attributes:
        text: empty where a reader has no use for it; `num_chars` is its length all the same.
        label: the file's own word on whether it is right.
        final: its word on what the final answer is.
        candidate_id: its name for the answer.
        place: the answer's number among those of its row, from 0; in a labelled pool among those of
            its question.
        rewards: by the columns or models that were asked for; None for what is no finite number.
    """

    text: str
    model: str | None = None
    label: bool | None = None
    num_tokens: int | None = None
    final: str | None = None
    candidate_id: str | None = None
    place: int = 0
    rewards: tuple[float | None, ...] = ()
    num_chars: int = 0


@dataclass(frozen=True)
class PoolRow:
    """What one row says; `problems` holds answers that are none, with their reasons.

    `names` are all that the row is called, `problem_id` is the first of them; `num_values` counts
    what stands in the places of answers.
    """

    problem_id: str | None
    question: str | None
    reference: str | None
    answers: list[Answer]
    problems: list[Unusable]
    names: tuple[str, ...] = ()
    num_values: int = 0


def read_pool_row(row: Row, reward_columns: Sequence[str] = ()) -> PoolRow:
    """`reward_columns` are read as rewards and as nothing else.

    Raises Unusable where the row names no problem or has no place for answers.
    """
    given = {name: row.get(name) for name in reward_columns}
    row = {name: value for name, value in row.items() if name not in given}
    problem_id = _first(row, _IDS)
    question = _text(row, _QUESTIONS)
    if problem_id is None and question is None:
        raise Unusable(
            RejectReason.PROMPT_EMPTY, f"none of {', '.join(_IDS)} and {', '.join(_QUESTIONS)}"
        )
    answers: list[Answer] = []
    problems: list[Unusable] = []
    finals = next((row[name] for name in _FINAL_LISTS if isinstance(row.get(name), list)), [])
    values = _values(row)
    for number, (value, label, model) in enumerate(values):
        try:
            final = finals[number] if number < len(finals) else None
            answer = _answer(value, label, model, final)
            found = [_reward(*item, value, number, len(values)) for item in given.items()]
            answers.append(replace(answer, place=number, rewards=tuple(found)))
        except Unusable as error:
            problems.append(Unusable(error.reason, f"answer {number}: {error.detail}"))
    if not answers and not problems:
        problems.append(Unusable(RejectReason.TOO_FEW_ANSWERS, "no answers"))
    reference = _first(row, _REFERENCES)
    return PoolRow(
        None if problem_id is None else str(problem_id),
        question,
        None if reference is None else str(reference),
        answers,
        problems,
        tuple(str(row[name]) for name in _IDS if isinstance(row.get(name), str | int)),
        len(values),
    )


def _values(row: Row) -> list[tuple[Any, Any, Any]]:
    """(answer, its label, its model) of every answer, as they stand in the row."""
    model = _first(row, _MODELS)
    for name in _LISTS:
        if isinstance(row.get(name), list):
            values = row[name]
            labels = next((row[k] for k in _LABEL_LISTS if isinstance(row.get(k), list)), None)
            if labels is not None and len(labels) != len(values):
                raise Unusable(
                    RejectReason.BAD_LABEL, f"{len(values)} {name} and {len(labels)} labels"
                )
            return [
                (value, None if labels is None else labels[i], model)
                for i, value in enumerate(values)
            ]
    named = [
        (value, None, name)
        for name, value in row.items()
        if isinstance(value, dict) and "solution" in value
    ]
    if named:
        return named
    for name in _TEXTS:
        if name in row and name not in _QUESTIONS:
            return [({**row, "text": row[name]}, None, model)]
    raise Unusable(RejectReason.TOO_FEW_ANSWERS, f"none of {', '.join((*_LISTS, *_TEXTS))}")


def _answer(value: Any, label: Any, model: Any, final: Any) -> Answer:
    tokens = candidate_id = None
    if isinstance(value, dict):
        candidate_id = _first(value, _CANDIDATE_IDS)
        place = next((name for name in _TEXTS if value.get(name) is not None), None)
        text = None if place is None else value[place]
        final = value.get("answer", final) if place != "answer" else final
        label = next((value[name] for name in _LABELS if value.get(name) is not None), label)
        found = _first(value, _MODELS)
        model = model if found is None else found
        tokens = value.get("num_tokens")
    else:
        text = value
    if text is None:
        raise Unusable(RejectReason.EMPTY, f"none of {', '.join(_TEXTS)}")
    # 0 and 1 equal False and True; fractions are no truth values.
    if label is not None and label not in (True, False):
        raise Unusable(RejectReason.BAD_LABEL, f"label is {str(label)[:40]!r}, not true or false")
    checked = checked_text(text, "the answer")
    return Answer(
        checked,
        None if model is None else str(model),
        None if label is None else bool(label),
        tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None,
        str(final).strip() if isinstance(final, str | int | float) else None,
        None if candidate_id is None else str(candidate_id),
        num_chars=len(checked),
    )


def _reward(name: str, of_row: Any, value: Any, number: int, num_values: int) -> float | None:
    """Of one answer: its own column, or its place in the row's list, or the row's one number."""
    if isinstance(value, dict) and name in value:
        found = value[name]
    elif isinstance(of_row, list) and len(of_row) == num_values:
        found = of_row[number]
    else:
        found = of_row if num_values == 1 else None
    if isinstance(found, list) and len(found) == 1:  # as programs with several heads write it
        found = found[0]
    return finite(found)


def finite(value: Any) -> float | None:
    """`value` where it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _first(row: Row, names: Iterable[str]) -> Any:
    """The first of the columns that holds text or a number."""
    return next((row[name] for name in names if isinstance(row.get(name), str | int)), None)


def _text(row: Row, names: Iterable[str]) -> str | None:
    for name in names:
        if isinstance(row.get(name), str) and row[name].strip():
            return checked_text(row[name], name).strip()
    return None


@dataclass
class RewardTable:
    """Rewards of one model, by candidate, or by row with one for each of its answers.

    Attributes:
        by_row: by the row's id; what has two different lists is in `ambiguous` instead.
        by_place: by "<file>#<number of the row>", with the row's id.
    """

    by_candidate: dict[str, float | None] = field(default_factory=dict)
    by_row: dict[str, Scores] = field(default_factory=dict)
    by_place: dict[str, tuple[str, Scores]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)

    def of(self, row: PoolRow, place: str) -> dict[int, float | None]:
        """Of the row's answers, by their place in it; without what the table does not have.

        A row at the same place counts if it is also called alike, or has no other name.
        """
        row_id, scores = self.by_place.get(place, ("", None))
        if scores is None or row_id not in (place, *row.names):
            found = [self.by_row[name] for name in row.names if name in self.by_row]
            scores = found[0] if found else None
        if scores is not None and len(scores) == row.num_values:
            return dict(enumerate(scores))
        return {a.place: self.by_candidate.get(a.candidate_id or "") for a in row.answers}

    def add(self, row: Row) -> bool:
        """Whether the row has rewards at all."""
        candidate_id, row_id = row.get("candidate_id"), row.get("row_id")
        if isinstance(candidate_id, str) and "score" in row:
            self._add(self.by_candidate, candidate_id, finite(row["score"]))
            return True
        if not isinstance(row_id, str) or not isinstance(row.get("scores"), list):
            return False
        scores = [finite(score) for score in row["scores"]]
        if isinstance(row.get("place"), str):
            self.by_place[row["place"]] = (row_id, scores)
        self._add(self.by_row, row_id, scores)
        return True

    def _add(self, table: dict[str, Any], name: str, value: Any) -> None:
        if name in self.ambiguous:
            return
        if table.setdefault(name, value) != value:
            del table[name]
            self.ambiguous.add(name)


def read_rewards(name: str, path: str) -> RewardTable:
    """Raises InputError for a table that cannot be read or has no rewards in any row."""
    table = RewardTable()
    num_read = 0
    for item in numbered(f"the rewards of {name!r}: path", path):
        num_read += not isinstance(item, Reject) and table.add(item[1])
    if not num_read:
        raise InputError(
            f"{path}, the rewards of {name!r}, has no row with row_id and scores, or with "
            "candidate_id and score.",
            "Name the folder scores/ that codepmp score or codepmp eval bon wrote.",
        )
    return table


def read_grades(path: str) -> dict[str, Row]:
    """Grades by candidate. Raises InputError for a table that cannot be read or has none."""
    grades: dict[str, Row] = {}
    for item in numbered("pool_statistics.grades_path", path):
        if not isinstance(item, Reject) and isinstance(item[1].get("candidate_id"), str):
            grades[item[1]["candidate_id"]] = item[1]
    if not grades:
        raise InputError(
            f"{path}, the grades, has no row with a candidate_id.",
            "Name the folder grades/ that codepmp answers grade wrote.",
        )
    return grades
