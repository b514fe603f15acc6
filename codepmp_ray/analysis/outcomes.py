"""Sampled answers, their grades and the best-of-N evaluation of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from codepmp_ray.analysis.tables import Counts, read_columns, value_counts
from codepmp_ray.json_records import stored_record
from codepmp_ray.records import CANDIDATE, GRADE, SCORE
from codepmp_ray.runs import Stage

RESULTS_FILE = "results.json"
WITHOUT_PMP_FILE = "without_pmp.json"  # beside it: the same without PMP, where that was run
NUM_PICKS = 3


@dataclass(frozen=True)
class SplitCounts:
    """Answers of one split. `num_passed` is None as long as they are not graded."""

    split: str
    num_problems: int
    num_answers: int
    num_graded: int
    num_passed: int | None


@dataclass(frozen=True)
class SamplingData:
    """Sampled answers by split; `outcomes` counts the grades of all of them."""

    splits: list[SplitCounts]
    outcomes: Counts
    models: Counts

    @property
    def num_answers(self) -> int:
        return sum(split.num_answers for split in self.splits)


@dataclass(frozen=True)
class Pick:
    """One problem of the evaluation: its candidates, highest score first.

    Candidates are dicts with score, passed (None if not graded), outcome, num_tokens, completion.
    """

    problem_id: str
    prompt: str
    candidates: list[dict[str, Any]]

    @property
    def is_mixed(self) -> bool:
        """Some answers pass and some fail, so the choice matters."""
        return len({bool(candidate["passed"]) for candidate in self.candidates}) == 2


@dataclass(frozen=True)
class EvaluationData:
    """`results` is results.json, empty when it is not written yet; `without_pmp` likewise."""

    results: dict[str, Any]
    picks: list[Pick]
    without_pmp: dict[str, Any]

    @property
    def ks(self) -> list[int]:
        return [int(k) for k in self.results.get("bon", {}).get("k", [])]

    @property
    def curves(self) -> dict[str, dict[str, Any]]:
        """Series name -> accuracy, low and high, one value per entry of `ks`."""
        bon = self.results.get("bon", {})
        return {name: value for name, value in bon.items() if isinstance(value, dict)}


def load_sampling(candidates: Stage, grades: Stage | None) -> SamplingData:
    columns = ["candidate_id", "problem_id", "split", "model"]
    answers = read_columns(candidates.ledger, "candidates", columns, CANDIDATE)
    graded = _grades(grades)
    joined = answers.join(graded, keys="candidate_id", join_type="left outer")
    splits = []
    for split in sorted(value_counts(answers["split"]), reverse=True):  # train before eval
        rows = [row for row in joined.to_pylist() if row["split"] == split]
        grades_of_split = [row["passed"] for row in rows if row["passed"] is not None]
        splits.append(
            SplitCounts(
                split,
                num_problems=len({row["problem_id"] for row in rows}),
                num_answers=len(rows),
                num_graded=len(grades_of_split),
                num_passed=sum(grades_of_split) if grades_of_split else None,
            )
        )
    return SamplingData(splits, value_counts(graded["outcome"]), value_counts(answers["model"]))


def load_evaluation(
    evaluation: Stage, candidates: Stage | None, grades: Stage | None
) -> EvaluationData:
    results, without_pmp = (_record(evaluation, name) for name in (RESULTS_FILE, WITHOUT_PMP_FILE))
    picks = _picks(evaluation, candidates, grades) if candidates else []
    return EvaluationData(results, picks, without_pmp)


def _record(stage: Stage, name: str) -> dict[str, Any]:
    return stored_record(stage.store, name) if stage.store.exists(name) else {}


def _grades(stage: Stage | None) -> pa.Table:
    columns = ["candidate_id", "passed", "outcome"]
    if stage is None:
        return pa.schema([GRADE.field(name) for name in columns]).empty_table()
    return read_columns(stage.ledger, "grades", columns, GRADE)


def _picks(evaluation: Stage, candidates: Stage, grades: Stage | None) -> list[Pick]:
    """A passing and a failing pick where candidates differ, then others, by problem id."""
    columns = ["candidate_id", "problem_id", "score"]
    scores = read_columns(evaluation.ledger, "scores", columns, SCORE)
    shown = ["candidate_id", "prompt", "completion", "num_tokens", "sample_index"]
    answers = read_columns(candidates.ledger, "candidates", shown, CANDIDATE)
    joined = scores.join(answers, keys="candidate_id", join_type="inner").join(
        _grades(grades), keys="candidate_id", join_type="left outer"
    )
    problems: dict[str, list[dict[str, Any]]] = {}
    order = [("problem_id", "ascending"), ("score", "descending"), ("sample_index", "ascending")]
    for row in joined.sort_by(order).to_pylist():
        problems.setdefault(row["problem_id"], []).append(row)
    picks = [Pick(name, rows[0]["prompt"], rows) for name, rows in problems.items()]
    mixed = [pick for pick in picks if pick.is_mixed]
    first: list[Pick] = []
    for passed in (True, False):
        first += [p for p in mixed if bool(p.candidates[0]["passed"]) is passed][:1]
    return (first + [pick for pick in picks if pick not in first])[:NUM_PICKS]
