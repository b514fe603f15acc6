"""The one place where studies call for measures of others: arrays in, values out.

Figures of trainings are [trainings, problems], each the share of a problem's pairs (or of its
draws) that came out right: an interval speaks of other problems and of other trainings, and there
is none with fewer than `estimates.MIN_TRAININGS`. Figures of one thing at hand (a model that was
not trained here, a rule, a vote) are [problems], and what is said of it speaks of other problems
only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codepmp_ray.estimates import estimate
from codepmp_ray.evaluation import statistics
from codepmp_ray.resampling import Floats, percentiles, resampled_means
from codepmp_ray.studies.outcome import About, Comparison, Value

_NUM_BOOTSTRAP = 10_000  # as evaluations have it


def pair_shares(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, problems: list[str]
) -> tuple[list[str], Floats]:
    """Of every problem the share of its pairs whose chosen side has the higher reward, ties half.

    All arguments have one entry per pair; problems are given back in the order of first appearance.
    """
    gaps = np.asarray(chosen, float) - np.asarray(rejected, float)
    right = (gaps > 0) + (gaps == 0) / 2
    names = list(dict.fromkeys(problems))
    index = {name: i for i, name in enumerate(names)}
    group = np.array([index[name] for name in problems], dtype=int)
    sums = np.bincount(group, weights=right, minlength=len(names))
    return names, sums / np.bincount(group, minlength=len(names))


def all_pairs_right(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, problems: list[str]
) -> tuple[list[str], Floats]:
    """Of every problem whether the right answer beats each wrong one: multiple choice, best of all.

    A tie with m wrong ones at the top counts 1 / (m + 1).
    """
    gaps = np.asarray(chosen, float) - np.asarray(rejected, float)
    by_problem: dict[str, list[float]] = {}
    for name, gap in zip(problems, gaps, strict=True):
        by_problem.setdefault(name, []).append(float(gap))
    values = [
        0.0 if min(found) < 0 else 1 / (1 + sum(gap == 0 for gap in found))
        for found in by_problem.values()
    ]
    return list(by_problem), np.array(values)


def best_of_k(rewards: Floats, correct: Floats, ks: list[int]) -> Floats:
    """[problems, ks]: exact expectation over subsets of the pools [problems, candidates]."""
    return statistics.best_of_k(rewards, correct, ks)


def mean_interval(values: npt.ArrayLike, num_bootstrap: int, confidence: float) -> Value:
    """The mean of `values` [rows], of any unit, with its interval over rows."""
    column = np.asarray(values, float)[:, None]
    (low,), (high,) = percentiles(resampled_means(column, num_bootstrap), confidence)
    return Value(float(column.mean()), float(low), float(high))


def interval(values: npt.ArrayLike, confidence: float) -> Value:
    """The mean of shares [trainings, problems] or [problems] with its interval within [0, 1]."""
    table = np.asarray(values, float)
    if table.ndim == 1:
        (found,) = statistics.bootstrap_intervals(table[:, None], confidence, _NUM_BOOTSTRAP)
        return Value(found.mean, found.low, found.high)
    known = estimate(table)
    if not known.is_known:
        return Value(known.mean)
    found = known.interval(confidence)
    return Value(found.mean, max(0.0, found.low), min(1.0, found.high))


def compare(
    question: str,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    confidence: float,
    paper_difference: float | None = None,
    about: About = "other",
    told: str = "",
) -> Comparison:
    """first - second, paired by problem and, where both are of trainings, by training.

    `told` is what may be said beside the verdict, if there is one.
    """
    gaps = np.asarray(first, float) - np.asarray(second, float)
    if gaps.ndim == 1:
        (found,) = statistics.compare_gaps(gaps[:, None], confidence, _NUM_BOOTSTRAP)
        difference = Value(found.mean, found.low, found.high)
        num_seeds, p_value, detectable = 0, found.test_p_value, found.detectable
        power = None
    else:
        known = estimate(gaps)
        num_seeds = len(gaps)
        if not known.is_known:
            return Comparison(question, Value(known.mean), None, None, num_seeds, gaps.shape[1],
                              paper_difference, about=about)  # fmt: skip
        limits = known.interval(confidence)
        difference = Value(known.mean, limits.low, limits.high)
        p_value, detectable = known.p_value, known.detectable(confidence)
        power = None if paper_difference is None else known.power(paper_difference, confidence)
    return Comparison(
        question, difference, p_value, detectable, num_seeds, gaps.shape[-1], paper_difference,
        power, about, told,
    )  # fmt: skip
