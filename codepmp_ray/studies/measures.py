"""The one place where studies call for measures of others: arrays in, values out.

Accuracy arrays are [seeds, problems], each entry the share of a problem's pairs (or of its draws)
that came out right. An interval speaks of other problems and of other trainings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.analysis.lengths import length_bias
from codepmp_ray.evaluation import statistics
from codepmp_ray.resampling import Floats, percentiles, resampled_means
from codepmp_ray.studies.outcome import Comparison, Value

_POWER = 0.8
_NUM_MAJORITY_DRAWS = 200
_ONE_EACH = "; one training each, so other trainings may differ more"
_NOT_ALIKE = "; of the first there is one training, and the two were not trained alike"


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


def baselines(
    correct: Floats, lengths: Floats, answers: npt.ArrayLike | None, ks: list[int]
) -> dict[str, Floats]:
    """Curves [problems, ks] that need no reward model; majority voting where answers are known."""
    found = {
        "random": statistics.random_choice(correct, ks),
        "length": statistics.best_of_k(lengths, correct, ks),
        "oracle": statistics.oracle(correct, ks),
    }
    if answers is not None:
        found["majority"] = statistics.majority(answers, correct, ks, _NUM_MAJORITY_DRAWS)[0]
    return found


def mean_interval(values: npt.ArrayLike, num_bootstrap: int, confidence: float) -> Value:
    """The mean of `values` [rows] with its interval over rows."""
    column = np.asarray(values, float)[:, None]
    (low,), (high,) = percentiles(resampled_means(column, num_bootstrap), confidence)
    return Value(float(column.mean()), float(low), float(high))


def length_rule(chosen: npt.ArrayLike, rejected: npt.ArrayLike) -> dict[str, Any]:
    """How well "the longer answer is the chosen one" does on pairs, lengths in tokens."""
    bias = length_bias(np.asarray(chosen, int), np.asarray(rejected, int))
    return {"accuracy": bias.longer_rule, "low": bias.low, "high": bias.high}


@dataclass(frozen=True)
class Spread:
    """Mean of [seeds, problems], its standard error and the t quantile of its interval."""

    mean: float
    error: float
    quantile: float
    df: float

    @property
    def value(self) -> Value:
        half = self.quantile * self.error
        return Value(self.mean, self.mean - half, self.mean + half)


def spread(values: Floats, confidence: float) -> Spread:
    """Standard error of the mean from two independent sources: which problems, which trainings.

    With one seed the second is unknown and left out. Degrees of freedom by Welch-Satterthwaite.
    """
    values = np.atleast_2d(values)
    num_seeds, num_problems = values.shape
    by_problem = values.mean(axis=0)
    parts: list[tuple[float, int]] = []
    if num_problems > 1:
        parts.append((float(by_problem.var(ddof=1)) / num_problems, num_problems - 1))
    if num_seeds > 1:
        parts.append((float(values.mean(axis=1).var(ddof=1)) / num_seeds, num_seeds - 1))
    variance = sum(part for part, _ in parts)
    if not parts:
        return Spread(float(values.mean()), math.inf, 1.0, 1.0)
    weights = sum(part**2 / df for part, df in parts)
    df = variance**2 / weights if weights else float(max(num_problems - 1, 1))
    quantile = t_quantile(0.5 + confidence / 2, df)
    return Spread(float(values.mean()), math.sqrt(variance), quantile, df)


def interval(values: Floats, confidence: float) -> Value:
    """The mean of shares [seeds, problems] with its interval, kept inside [0, 1].

    Where all entries are equal the formula sees no spread: the interval is then widened by the
    share of problems of another kind that so many alike ones do not exclude.
    """
    found = spread(values, confidence).value
    num_problems = np.atleast_2d(values).shape[1]
    slack = statistics.unseen_share(num_problems, confidence) if np.ptp(values) < 1e-12 else 0.0
    low, high = _limits(found)
    return Value(found.mean, max(0.0, low - slack), min(1.0, high + slack))


def compare(
    question: str,
    first: Floats,
    second: Floats,
    confidence: float,
    paper_difference: float | None = None,
) -> Comparison:
    """first - second, both [seeds, problems] of the same seeds and problems, paired."""
    gaps = np.atleast_2d(first) - np.atleast_2d(second)
    found = spread(gaps, confidence)
    if np.ptp(gaps) < 1e-12:
        # No spread to estimate from: nothing can be said, except that they agree on these.
        slack = statistics.unseen_share(gaps.shape[1], confidence)
        found = Spread(found.mean, slack / found.quantile, found.quantile, found.df)
    error = max(found.error, 1e-12)
    statistic = abs(found.mean) / error
    detectable = (found.quantile + NormalDist().inv_cdf(_POWER)) * error
    return Comparison(
        question=question,
        difference=found.value,
        p_value=min(1.0, 2 * (1 - t_cdf(statistic, found.df))),
        detectable=detectable,
        num_seeds=gaps.shape[0],
        num_problems=gaps.shape[1],
        verdict=_verdict(found.value, detectable) + (_ONE_EACH if gaps.shape[0] == 1 else ""),
        paper_difference=paper_difference,
        power_for_paper=None
        if paper_difference is None
        else _power(abs(paper_difference) / error, found.quantile),
    )


def compare_given(
    question: str, one: Floats, others: Floats, confidence: float, told: str = _NOT_ALIKE
) -> Comparison:
    """`one` [1, problems], of a model that was not trained here, minus `others` [seeds, problems].

    They are paired by problem. Every seed of the others is held against the same model, so the
    interval speaks of other problems and other trainings of the others (of two seeds or more), and
    never of other trainings of the one: `num_seeds` is 1, and `told`, after the verdict, says it.
    """
    found = compare(question, np.broadcast_to(one, np.shape(others)), others, confidence)
    verdict = _verdict(found.difference, found.detectable) + told
    return replace(found, num_seeds=1, verdict=verdict)


def _verdict(difference: Value, detectable: float) -> str:
    low, high = _limits(difference)
    if low <= 0 <= high:
        return f"too small to tell (below {100 * detectable:.1f} points it would be missed)"
    return "higher" if difference.mean > 0 else "lower"


def _power(shift: float, quantile: float) -> float:
    """Chance of a significant result when the true difference is `shift` standard errors."""
    normal = NormalDist()
    return normal.cdf(shift - quantile) + normal.cdf(-shift - quantile)


def _limits(value: Value) -> tuple[float, float]:
    low = -math.inf if value.low is None else value.low
    high = math.inf if value.high is None else value.high
    return low, high


def t_cdf(value: float, df: float) -> float:
    """Student's t, by t = sqrt(df) tan(angle), whose density is cos^(df - 1)."""
    angles, cumulative = _angles(df)
    return float(np.interp(math.atan(value / math.sqrt(df)), angles, cumulative))


def t_quantile(share: float, df: float) -> float:
    """The value below which `share` of Student's t lies."""
    angles, cumulative = _angles(df)
    return math.sqrt(df) * math.tan(float(np.interp(share, cumulative, angles)))


def _angles(df: float) -> tuple[Floats, Floats]:
    # Nearly all of cos^(df - 1) lies within some standard deviations, 1 / sqrt(df), of zero.
    edge = min(math.pi / 2, 12 / math.sqrt(df))
    angles = np.linspace(-edge, edge, 20_001)
    density = np.cos(angles).clip(0.0) ** (df - 1)
    steps = (density[1:] + density[:-1]) / 2
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    return angles, cumulative / cumulative[-1]
