"""Graded answers of a run as a pool: a question and its labelled candidates in a row."""

from __future__ import annotations

from collections import Counter
from typing import Any

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import InputError
from codepmp_ray.runs import open_stage

Row = dict[str, Any]


def graded_pool(recipe: Recipe, split: str = "eval") -> tuple[list[Row], dict[str, int]]:
    """(rows of docs/data-format.md, counts of the answers) from candidates and grades.

    Rows and answers are in the order of ids and samples. An answer without a grade, and an empty
    one, are not in the pool, but in the counts. Raises InputError when a stage is missing or
    nothing is left.
    """
    candidates = open_stage(recipe, "candidates").require().ledger
    grades = open_stage(recipe, "grades").require().ledger
    grade_of = {row["candidate_id"]: row for row in grades.read("grades").to_pylist()}
    rows: dict[str, Row] = {}
    counts: Counter[str] = Counter(num_used=0, num_without_grade=0, num_empty=0)
    answers = [row for row in candidates.read("candidates").to_pylist() if row["split"] == split]
    for answer in sorted(answers, key=lambda row: (row["problem_id"], row["sample_index"])):
        grade = grade_of.get(answer["candidate_id"])
        if grade is None or grade["passed"] is None:
            counts["num_without_grade"] += 1
            continue
        if not (answer["completion"] or "").strip():
            counts["num_empty"] += 1
            continue
        counts["num_used"] += 1
        row = rows.setdefault(
            answer["problem_id"],
            {"problem_id": answer["problem_id"], "question": answer["prompt"], "candidates": []},
        )
        row["candidates"].append(
            {
                "candidate_id": answer["candidate_id"],
                "text": answer["completion"],
                "correct": grade["passed"],
                "answer": grade["answer"],
                "model": answer["model"],
                "num_tokens": answer["num_tokens"],
            }
        )
    if not rows:
        raise InputError(
            f"No answer of the {split} problems of {recipe.run_dir} has a grade: "
            f"{counts['num_without_grade']} could not be graded, {counts['num_empty']} are empty.",
            "Run jobs.sample and jobs.grade first, where a sandbox works (jobs.check says so).",
        )
    return list(rows.values()), dict(counts)
