"""ProcessBench (Zheng et al. 2024, Apache-2.0): find the first wrong step of a solution, or none.

A reward model scores every solution after each of its steps. Its prediction is the first step after
which the reward is below a threshold; where there is none, the solution is held to be right. As the
authors do with process reward models, the threshold is the one with the highest F1 on the part
gsm8k, and serves all parts; so gsm8k's own figure is a little too high. F1 is the harmonic mean of
two accuracies: of solutions with a wrong step (the very step has to be found), and of those without
one. The total is the mean of the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from codepmp_ray.client import CandidateScore
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap
from codepmp_ray.evaluation.scored_shards import Request
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Reject
from codepmp_ray.resampling import Floats, cluster_sums, intervals, resampled, share_limits

PARTS = ("gsm8k", "math", "olympiadbench", "omnimath")
FITTED_ON, TOTAL = PARTS[0], "Total"
_SETTING = "accuracy.process_bench"
_COLUMNS = ("id", "problem", "steps", "label")


@dataclass(frozen=True)
class Solution:
    """`label`: index of the first wrong step, -1 where all are right."""

    solution_id: str
    part: str
    problem: str
    steps: tuple[str, ...]
    label: int


def read_solutions(path: str) -> list[Solution]:
    """From a file or folder of the set's rows. Raises InputError that names the first bad row."""
    found: dict[str, Solution] = {}
    for item in numbered(_SETTING, path):
        index, row = (item.index, item.detail) if isinstance(item, Reject) else item
        try:
            solution = _solution(row)
            if solution.solution_id in found:
                raise ValueError(f"a second row with the id {solution.solution_id!r}")
        except ValueError as error:
            raise InputError(
                f"Row {index + 1} of {path} is no solution of ProcessBench: {error}.",
                "Mend or take out the row; docs/evaluation.md says what a row holds.",
            ) from error
        found[solution.solution_id] = solution
    if not found:
        raise InputError(f"{path} holds no solution of ProcessBench.")
    return [*found.values()]


def _solution(row: Any) -> Solution:
    if not isinstance(row, dict):
        raise ValueError(row)
    if missing := [name for name in _COLUMNS if row.get(name) is None]:
        raise ValueError(f"no {', '.join(missing)}")
    name, problem, steps, label = (row[column] for column in _COLUMNS)
    part = str(name).rpartition("-")[0]
    if part not in PARTS:
        raise ValueError(f"its id {name!r} begins with none of {', '.join(PARTS)}")
    texts = [problem, *steps] if isinstance(steps, list) and steps else [None]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("problem is no text, or steps no list of texts")
    if type(label) is not int or not -1 <= label < len(steps):
        raise ValueError(f"label is {label!r}, and it has {len(steps)} steps")
    return Solution(str(name), part, problem, tuple(steps), label)


def request_of(solution: Solution) -> Request:
    """Its beginnings up to each step, as texts to one prompt."""
    steps = solution.steps
    texts = ["\n\n".join(steps[: end + 1]) for end in range(len(steps))]
    return Request(solution.problem, texts, partial(_rows, solution))


def _rows(solution: Solution, scores: list[CandidateScore]) -> list[dict[str, Any]]:
    return [
        {
            "solution_id": solution.solution_id,
            "section": solution.part,
            "step": step,
            "score": score.score,
            "num_tokens": score.num_tokens,
            "truncated": score.truncated,
        }
        for step, score in enumerate(scores)
    ]


def process_figures(
    solutions: Sequence[Solution], rows: Sequence[dict[str, Any]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """JSON values of STEP_SCORE rows of all `solutions`: F1 by part and in all, with intervals.

    Intervals are over problems, with the threshold as it was found. Raises InputError without rows
    of gsm8k, and for a part that lacks one of the two kinds of solutions.
    """
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        scores.setdefault(row["solution_id"], {})[row["step"]] = row["score"]
    by_part = {name: [s for s in solutions if s.part == name] for name in PARTS}
    by_part = {name: found for name, found in by_part.items() if found}
    for name in {FITTED_ON, *by_part}:
        kinds = {solution.label < 0 for solution in by_part.get(name, ())}
        if len(kinds) < 2:
            raise InputError(
                f"ProcessBench's part {name} needs solutions with and without a wrong step.",
                f"Give the whole of it; the threshold is found on {FITTED_ON}.",
            )
    tables = {
        name: (_table(found, scores), np.array([solution.label for solution in found]))
        for name, found in by_part.items()
    }
    threshold = _best_threshold(*tables[FITTED_ON])
    parts: dict[str, Any] = {}
    draws, means = [], []
    for number, (name, (table, labels)) in enumerate(tables.items()):
        sums, _ = cluster_sums(
            _hits(table, labels, threshold), [solution.problem for solution in by_part[name]]
        )
        drawn = resampled(sums, bootstrap.num_bootstrap, _f1, bootstrap.seed + number)
        limits = share_limits(drawn, bootstrap.confidence, len(sums))
        found, missed, right, all_right = sums.sum(0)
        mean = float(_f1(sums.sum(0)[None])[0, 0])
        parts[name] = asdict(intervals([mean], *limits)[0]) | {
            "with_wrong_step": float(found / missed),
            "without": float(right / all_right),
            "num_solutions": len(labels),
        }
        draws.append(drawn)
        means.append(mean)
    num_problems = min(len({s.problem for s in found}) for found in by_part.values())
    limits = share_limits(np.mean(draws, axis=0), bootstrap.confidence, num_problems)
    (total,) = intervals([np.mean(means)], *limits)
    missing = [name for name in PARTS if name not in parts]
    return {
        "sections": {TOTAL: asdict(total)}, "parts": parts, "missing": missing,
        "threshold": threshold, "num_truncated": sum(row["truncated"] for row in rows),
    }  # fmt: skip


def _table(solutions: Sequence[Solution], scores: dict[str, dict[int, float]]) -> Floats:
    """Rewards [solutions, steps], infinite past a solution's last step."""
    longest = max(len(solution.steps) for solution in solutions)
    table = np.full((len(solutions), longest), np.inf)
    for line, solution in zip(table, solutions, strict=True):
        of_steps = scores.get(solution.solution_id, {})
        for step in range(len(solution.steps)):
            line[step] = of_steps[step]
    return table


def _hits(table: Floats, labels: Any, threshold: float) -> Floats:
    """[solutions, 4]: wrong step found, has one; held to be right, is right."""
    below = table < threshold
    predicted = np.where(below.any(axis=1), below.argmax(axis=1), -1)
    is_hit, is_right = predicted == labels, labels < 0
    return np.stack([is_hit & ~is_right, ~is_right, is_hit & is_right, is_right], axis=1).astype(
        float
    )


def _f1(sums: Floats) -> Floats:
    """[resamples, 1] of sums [resamples, 4]; nothing where a resample lacks one of the kinds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found, right = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
    both = found + right
    return np.divide(2 * found * right, both, out=both, where=both > 0)[:, None]


def _best_threshold(table: Floats, labels: Any) -> float:
    """The lowest one of those with the highest F1: each reward is tried, as the first one kept."""
    values = np.unique(table[np.isfinite(table)])
    figures = [_f1(_hits(table, labels, value).sum(0)[None])[0, 0] for value in values]
    return float(values[int(np.argmax(figures))])
