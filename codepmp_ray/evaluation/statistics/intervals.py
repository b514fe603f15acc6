"""Percentile intervals over problems, of means, ratios and paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codepmp_ray.resampling import (
    Floats,
    Interval,
    percentiles,
    resampled_means,
    share_limits,
    unseen_share,
)


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
    problems agree the bootstrap sees no spread, which is not certainty: see `share_limits`.
    """
    means = values.mean(axis=0)
    draws = resampled_means(values, num_bootstrap, seed)
    low, high = share_limits(draws, confidence, len(values))
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
    draws = resampled_means(np.stack([numerators, denominators], axis=1), num_bootstrap, seed)
    draws = draws[draws[:, 1] > 0]
    ratio = float(numerators.sum() / denominators.sum())
    num_counted = int((denominators > 0).sum())
    (low,), (high,) = share_limits(draws[:, :1] / draws[:, 1:], confidence, num_counted)
    return Interval(ratio, float(low), float(high))


def paired_difference(
    left: Floats, right: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> Difference:
    """left - right per problem [problems], resampled together."""
    gaps = np.asarray(left, float) - np.asarray(right, float)
    return differences(gaps[:, None], confidence, num_bootstrap, seed)[0]


def differences(
    gaps: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> list[Difference]:
    """One per column of `gaps` [problems, comparisons]; one resampling serves all of them."""
    means = gaps.mean(axis=0)
    if len(gaps) < 2:
        return [Difference(float(mean), -1.0, 1.0, 1.0) for mean in means]
    draws = resampled_means(gaps, num_bootstrap, seed)
    low, high = percentiles(draws, confidence)
    slack = np.where(np.ptp(gaps, axis=0) < 1e-12, unseen_share(len(gaps), confidence), 0.0)
    low = np.where(slack > 0, np.maximum(low - slack, -1.0), low)
    high = np.where(slack > 0, np.minimum(high + slack, 1.0), high)
    return [
        Difference(float(mean), float(a), float(b), bootstrap_p_value(column))
        for mean, a, b, column in zip(means, low, high, draws.T, strict=True)
    ]


def bootstrap_p_value(draws: Floats) -> float:
    """Two-sided: twice the share of resamples on the other side of zero, itself included."""
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    return min(1.0, 2.0 * (float(tail) + 1.0) / (len(draws) + 1.0))
