"""Preference pairs for RM finetuning, from graded answers to the training problems.

chosen: each passing sampled answer where there are some, else the canonical solution in the form of
an answer, if the set has it in one. rejected: each failing sampled answer. Answers without a grade
are used on neither side, nor those that need a package which the sandbox lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.problems import problems_by_id
from codepmp_ray.evaluation.tasks.base import Problem
from codepmp_ray.preference.sources.rows import pair_up
from codepmp_ray.records import Outcome, stable_id
from codepmp_ray.runs import open_stage

Row = dict[str, Any]
MAX_ANSWERS_PER_SIDE = 8  # of a problem
_UNKNOWN = Outcome.MISSING_PACKAGE
FINETUNING_PAIR = pa.schema(
    [
        (name, pa.string())
        for name in ("pair_id", "problem_id", "prompt", "chosen", "rejected", "chosen_from")
    ]
    + [("rejected_outcome", pa.string())]
)


def build_finetuning_pairs(recipe: Recipe) -> pa.Table:
    """Pairs (FINETUNING_PAIR) of the recipe's candidates and grades, in a fixed order.

    The table's metadata counts problems by what became of them. Raises InputError when a stage is
    missing, most answers have no grade, or no problem gives a pair.
    """
    otherwise = "or name preference sets in finetuning.data"
    candidates = open_stage(recipe, "candidates").require(otherwise).ledger
    grades = open_stage(recipe, "grades").require(otherwise).ledger
    grade_of = {row["candidate_id"]: row for row in grades.read("grades").to_pylist()}
    answers = [
        {**row, **grade_of[row["candidate_id"]]}
        for row in candidates.read("candidates").to_pylist()
        if row["split"] == "train" and row["candidate_id"] in grade_of
    ]
    _require_grades(answers)
    problems = problems_by_id(recipe.candidates, (row["problem_id"] for row in answers))
    rows, counts = pair_answers(problems.values(), answers)
    if not rows:
        raise InputError(
            _explain_no_pairs(answers, counts),
            "Raise candidates.num_train_problems or candidates.num_train_samples.",
        )
    metadata = {name: str(count) for name, count in counts.items()}
    return pa.Table.from_pylist(rows, schema=FINETUNING_PAIR).replace_schema_metadata(metadata)


def _require_grades(answers: list[Row]) -> None:
    """A model of what happened to be graded would be one of what needs no execution."""
    without = [row for row in answers if row["passed"] is None or row["outcome"] == _UNKNOWN]
    if 2 * len(without) > len(answers):
        why = Counter(f"{row['outcome']}: {row['detail']}" for row in without).most_common(1)
        raise InputError(
            f"{len(without)} of {len(answers)} answers to training problems have no grade that "
            f"says whether they are right, most as {why[0][0]}.",
            "docs/evaluation.md says what a problem needs to be graded here; remove the stage "
            "`grades` and grade again, or name preference sets in finetuning.data.",
        )


def pair_answers(
    problems: Iterable[Problem], answers: list[Row], max_answers: int = MAX_ANSWERS_PER_SIDE
) -> tuple[list[Row], dict[str, int]]:
    """Pairs of answers (CANDIDATE and GRADE columns) and counts of problems by their fate.

    All of the first `max_answers` distinct passing answers with all of the first `max_answers`
    distinct failing ones, in the order of their samples.
    """
    answers_of: dict[str, list[Row]] = {}
    for row in sorted(answers, key=lambda row: (row["problem_id"], row["sample_index"])):
        answers_of.setdefault(row["problem_id"], []).append(row)
    rows: list[Row] = []
    counts: Counter[str] = Counter(
        num_problems=0, num_with_passing=0, num_with_canonical=0, num_without_pair=0
    )
    for problem in problems:
        counts["num_problems"] += 1
        graded = answers_of.get(problem.problem_id, [])
        passing = _distinct(row for row in graded if row["passed"])
        # null means not gradable; an empty answer (a failed request) teaches nothing.
        failing = _distinct(
            row
            for row in graded
            if row["passed"] is False and row["completion"] and row["outcome"] != _UNKNOWN
        )
        if not failing or not (passing or problem.canonical_answer):
            counts["num_without_pair"] += 1
            continue
        counts["num_with_passing" if passing else "num_with_canonical"] += 1
        good = [row["completion"] for row in passing[:max_answers]] or [None]
        rows += [_pair(problem, row, text) for text, row in pair_up(good, failing[:max_answers])]
    return rows, dict(counts)


def _pair(problem: Problem, failing: Row, passing: str | None) -> Row:
    chosen = problem.canonical_answer if passing is None else passing
    return {
        "pair_id": stable_id(problem.problem_id, chosen, failing["completion"]),
        "problem_id": problem.problem_id,
        "prompt": problem.prompt,
        "chosen": chosen,
        "rejected": failing["completion"],
        "chosen_from": "canonical" if passing is None else "sampled",
        "rejected_outcome": failing["outcome"],
    }


def _distinct(rows: Iterable[Row]) -> list[Row]:
    return list({row["completion"]: row for row in reversed(list(rows))}.values())[::-1]


def _explain_no_pairs(answers: list[Row], counts: dict[str, int]) -> str:
    outcomes = Counter(row["outcome"] for row in answers)
    return (
        f"None of the {counts['num_problems']} training problems gives a pair: their "
        f"{len(answers)} answers ended as {dict(sorted(outcomes.items()))}, and a pair needs a "
        "failing one, and a passing one where the task has no solution in the form of an answer."
    )
