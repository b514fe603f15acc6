"""Best-of-N accuracy for every k from one pool per problem, baselines, and bootstrap intervals.

All functions take arrays of shape [problems, candidates] and give [problems, ks]: the accuracy that
is expected when k candidates are drawn from the pool without replacement and one of them is chosen.
Expectations are exact (over all subsets, ties shared equally) except for majority voting, which is
sampled and comes with its Monte Carlo error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError

Floats = npt.NDArray[np.float64]
_CHUNK = 256  # bootstrap resamples at a time: memory is _CHUNK x problems x ks


def default_ks(num_candidates: int) -> list[int]:
    """1, 2, 4, ... and the pool size itself."""
    powers = [1 << i for i in range(num_candidates.bit_length()) if 1 << i <= num_candidates]
    return sorted({*powers, num_candidates})


def best_of_k(scores: npt.ArrayLike, passed: npt.ArrayLike, ks: list[int]) -> Floats:
    """Accuracy of the highest score among k.

    With scores sorted, a tie group that ends at rank c and begins after rank b holds the maximum
    with probability (C(c, k) - C(b, k)) / C(N, k), and each of its members is then equally likely.

    Raises InputError for NaN scores or shapes that do not fit.
    """
    values, correct = _pools(scores, passed)
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise InputError(f"The score of candidate {column} of problem {row} is not a number.")
    order = np.argsort(values, axis=1, kind="stable")
    values = np.take_along_axis(values, order, axis=1)
    correct = np.take_along_axis(correct, order, axis=1)
    return _mean_over_ties(values, correct) @ _max_rank_probability(values.shape[1], ks).T


def oracle(passed: npt.ArrayLike, ks: list[int]) -> Floats:
    """Chance that any of k is right: unbiased pass@k (Chen et al. 2021), 1 - C(N-c, k)/C(N, k)."""
    _, correct = _pools(passed, passed)
    num_wrong = correct.shape[1] - correct.sum(axis=1).astype(int)
    return 1.0 - _subset_ratio(correct.shape[1], ks)[:, num_wrong].T


def random_choice(passed: npt.ArrayLike, ks: list[int]) -> Floats:
    """One of k at random: the pool's mean, whatever k is."""
    _, correct = _pools(passed, passed)
    return np.repeat(correct.mean(axis=1, keepdims=True), len(ks), axis=1)


def majority(
    groups: npt.ArrayLike,
    passed: npt.ArrayLike,
    ks: list[int],
    num_draws: int = 1_000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """The answer given most often among k; candidates with equal `groups` gave the same answer.

    Equal counts share. Sampled with `num_draws` subsets per problem.

    Returns:
        accuracies [problems, ks]; Monte Carlo standard error of their mean over problems [ks].
    """
    labels, correct = _pools(groups, passed)
    num_problems, num_candidates = labels.shape
    generator = np.random.default_rng(seed)
    means = np.empty((num_problems, len(ks)))
    variances = np.empty_like(means)
    for row in range(num_problems):
        _, group = np.unique(labels[row], return_inverse=True)
        num_groups = int(group.max()) + 1
        draws = np.argsort(generator.random((num_draws, num_candidates)), axis=1)
        for column, k in enumerate(ks):
            chosen = draws[:, :k]
            counts = _sum_by_group(group, chosen, num_groups, None)
            rights = _sum_by_group(group, chosen, num_groups, correct[row])
            is_top = counts == counts.max(axis=1, keepdims=True)
            # Equal code may differ in outcome (time limits): a group counts as its drawn members.
            share = np.divide(rights, counts, out=np.zeros_like(rights), where=counts > 0)
            values = (is_top * share).sum(axis=1) / is_top.sum(axis=1)
            means[row, column] = values.mean()
            variances[row, column] = values.var() / num_draws
    return means, np.sqrt(variances.sum(axis=0)) / num_problems


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """Mean paired difference over problems; `p_value` is two-sided for "no difference"."""

    p_value: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def bootstrap_intervals(
    values: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> list[Interval]:
    """Percentile intervals of the mean over problems, one per column of `values`.

    With fewer than two problems nothing is known of their spread: the interval is [0, 1]. Where all
    problems agree the bootstrap sees no spread, which is not certainty: see `unseen_share`.
    """
    means = values.mean(axis=0)
    if len(values) < 2:
        return [Interval(float(mean), 0.0, 1.0) for mean in means]
    low, high = _percentiles(_resampled_means(values, num_bootstrap, seed), confidence)
    slack = np.where(np.ptp(values, axis=0) < 1e-12, unseen_share(len(values), confidence), 0.0)
    low, high = np.maximum(low - slack, 0.0), np.minimum(high + slack, 1.0)
    return [
        Interval(float(m), float(a), float(b)) for m, a, b in zip(means, low, high, strict=True)
    ]


def bootstrap_ratio(
    numerators: Floats, denominators: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> Interval:
    """Interval of sum(numerators) / sum(denominators) [problems], both resampled together.

    For ratios between 0 and 1. Where no resample can move it (all or none of what is counted), the
    interval is widened as in `bootstrap_intervals`, by the number of problems that count at all.
    """
    draws = _resampled_means(np.stack([numerators, denominators], axis=1), num_bootstrap, seed)
    draws = draws[draws[:, 1] > 0]
    ratio = float(numerators.sum() / denominators.sum())
    (low,), (high,) = _percentiles(draws[:, :1] / draws[:, 1:], confidence)
    if high - low < 1e-12:
        slack = unseen_share(int((denominators > 0).sum()), confidence)
        low, high = max(low - slack, 0.0), min(high + slack, 1.0)
    return Interval(ratio, float(low), float(high))


def unseen_share(num_problems: int, confidence: float) -> float:
    """Share of problems of another kind that `num_problems` alike ones do not exclude.

    The upper Clopper-Pearson limit for none in n (the "rule of three"): it widens an interval
    that resampling would give no width because every problem came out the same.
    """
    return 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / num_problems)


def paired_difference(
    left: Floats, right: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> Difference:
    """left - right per problem [problems], resampled together."""
    gaps = np.asarray(left, float) - np.asarray(right, float)
    mean = float(gaps.mean())
    if len(gaps) < 2:
        return Difference(mean, -1.0, 1.0, 1.0)
    draws = _resampled_means(gaps[:, None], num_bootstrap, seed)
    (low,), (high,) = _percentiles(draws, confidence)
    if np.ptp(gaps) < 1e-12:
        slack = unseen_share(len(gaps), confidence)
        low, high = max(low - slack, -1.0), min(high + slack, 1.0)
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2.0 * (float(tail) + 1.0) / (num_bootstrap + 1.0))
    return Difference(mean, float(low), float(high), p_value)


def _pools(values: npt.ArrayLike, passed: npt.ArrayLike) -> tuple[Floats, Floats]:
    left, right = np.asarray(values, float), np.asarray(passed, float)
    if left.ndim != 2 or left.shape != right.shape or 0 in left.shape:
        raise InputError(
            f"Pools must be [problems, candidates] arrays of one shape, not {left.shape} and "
            f"{right.shape}.",
        )
    return left, right


def _subset_ratio(num_candidates: int, ks: list[int]) -> Floats:
    """C(c, k) / C(N, k) for each k (rows) and c = 0..N (columns), without large numbers."""
    counts = np.arange(num_candidates + 1, dtype=float)
    rows = np.ones((num_candidates + 1, num_candidates + 1))
    for k in range(1, num_candidates + 1):
        rows[k] = rows[k - 1] * np.maximum(counts - k + 1, 0) / (num_candidates - k + 1)
    if wrong := [k for k in ks if not 1 <= k <= num_candidates]:
        raise InputError(f"k={wrong[0]} is outside 1..{num_candidates}, the size of the pools.")
    return rows[ks]


def _max_rank_probability(num_candidates: int, ks: list[int]) -> Floats:
    """Chance [ks, N] that the candidate at each rank, worst first, is the best of k."""
    return np.diff(_subset_ratio(num_candidates, ks), axis=1)


def _mean_over_ties(sorted_scores: Floats, correct: Floats) -> Floats:
    """`correct` with each entry replaced by the mean of its tie group."""
    num_problems, num_candidates = correct.shape
    starts = np.ones_like(correct, dtype=bool)
    starts[:, 1:] = sorted_scores[:, 1:] != sorted_scores[:, :-1]
    group = np.cumsum(starts.ravel()) - 1  # a new row always starts a new group
    sums = np.bincount(group, weights=correct.ravel())
    return (sums / np.bincount(group))[group].reshape(num_problems, num_candidates)


def _sum_by_group(
    group: npt.NDArray[np.intp],
    chosen: npt.NDArray[np.intp],
    num_groups: int,
    weights: Floats | None,
) -> Floats:
    """Per draw (row of `chosen`) the number, or the sum of weights, of chosen members by group."""
    num_draws = len(chosen)
    flat = (group[chosen] + np.arange(num_draws)[:, None] * num_groups).ravel()
    picked = None if weights is None else weights[chosen].ravel()
    sums = np.bincount(flat, weights=picked, minlength=num_draws * num_groups)
    return sums.reshape(num_draws, num_groups).astype(float)


def _resampled_means(values: Floats, num_bootstrap: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    num_problems = len(values)
    parts = []
    for start in range(0, num_bootstrap, _CHUNK):
        size = (min(_CHUNK, num_bootstrap - start), num_problems)
        parts.append(values[generator.integers(num_problems, size=size)].mean(axis=1))
    return np.concatenate(parts)


def _percentiles(draws: Floats, confidence: float) -> tuple[Floats, Floats]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    return low, high
