"""How often "the strong model's answer is the better one" is wrong, measured by execution.

Both models answer problems that have tests, each as it answers in synthesis. A pair of answers of
which exactly one passes has a true order; the label noise is the share of such pairs in which the
weak model's answer passes. Where both pass or both fail, execution cannot say which is better: the
shares of those are reported beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics import Interval, bootstrap_intervals, bootstrap_ratio
from codepmp_ray.records import Outcome
from codepmp_ray.resampling import Floats

_SHARES = ("strong_accuracy", "weak_accuracy", "right", "wrong", "both_pass", "both_fail")


@dataclass(frozen=True)
class LabelNoise:
    """Shares of pairs of one strong and one weak answer, as means over problems.

    Attributes:
        right: only the strong answer passes.
        wrong: only the weak answer passes.
        both_pass / both_fail: execution cannot tell the two apart.
        noise: wrong / (right + wrong), over problems together; None when no pair has an order.
    """

    num_problems: int
    strong_accuracy: Interval
    weak_accuracy: Interval
    right: Interval
    wrong: Interval
    both_pass: Interval
    both_fail: Interval
    noise: Interval | None


def label_noise(
    strong: Floats, weak: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> LabelNoise:
    """From pass rates [problems] of the two models' samples.

    Samples are independent given the problem, so products of rates are the expected shares over
    all pairs of samples. Intervals are bootstrapped over problems.
    """
    right, wrong = strong * (1 - weak), (1 - strong) * weak
    columns = np.stack([strong, weak, right, wrong, strong * weak, (1 - strong) * (1 - weak)], 1)
    shares = dict(
        zip(_SHARES, bootstrap_intervals(columns, confidence, num_bootstrap, seed), strict=True)
    )
    noise = None
    if right.sum() + wrong.sum() > 0:
        noise = bootstrap_ratio(wrong, right + wrong, confidence, num_bootstrap, seed)
    return LabelNoise(num_problems=len(strong), **shares, noise=noise)


def pass_rates(
    strong: Iterable[Mapping[str, Any]], weak: Iterable[Mapping[str, Any]]
) -> tuple[list[str], Floats, Floats]:
    """(problem ids, strong rates, weak rates) of GRADE rows, over the problems that both have.

    Answers that could not be judged are left out: of problems that are not gradable here, and those
    that need a package which is not. Raises InputError when no problem is in both.
    """
    tables = [_passed_by_problem(rows) for rows in (strong, weak)]
    ids = sorted(tables[0].keys() & tables[1].keys())
    if not ids:
        raise InputError(
            f"The strong model's {len(tables[0])} and the weak model's {len(tables[1])} graded "
            "problems have none in common.",
            "Run codepmp pairs noise again with one task and one split_seed.",
        )
    left, right = (np.array([np.mean(table[i]) for i in ids], dtype=np.float64) for table in tables)
    return ids, left, right


def _passed_by_problem(grades: Iterable[Mapping[str, Any]]) -> dict[str, list[bool]]:
    passed: dict[str, list[bool]] = {}
    for row in grades:
        if row["passed"] is not None and row["outcome"] != Outcome.MISSING_PACKAGE:
            passed.setdefault(row["problem_id"], []).append(row["passed"])
    return passed
