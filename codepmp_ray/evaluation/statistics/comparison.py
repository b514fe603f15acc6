"""Is one model better than another on the same problems?

Three figures answer: the bootstrap interval of the mean difference (how large), a test that assumes
only that under "no difference" the two labels could be swapped (how surprising), and the smallest
difference that this many problems would have shown (how much a "no" means).

The test is McNemar's exact one where each unit is won, lost or tied (pairs, single picks): the
losses among the units that differ are binomial. Expected accuracies by problem are fractions, which
McNemar's test does not know; their signs are flipped at random instead (Fisher's randomisation
test). Of equal gaps the second is the first.

Intervals are percentiles of the bootstrap over problems. Of several comparisons at once p-values
are adjusted for their number: Holm 1979 bounds the chance of any false "different" among all of
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import binomtest, permutation_test

from codepmp_ray.errors import InputError
from codepmp_ray.resampling import (
    Floats,
    Interval,
    cluster_sums,
    intervals,
    percentiles,
    resampled_means,
    share_limits,
    unseen_share,
)

_BLOCK = 2_000_000
_EQUAL = 1e-9


@dataclass(frozen=True)
class Difference(Interval):
    """Mean paired difference over problems; `p_value` is two-sided for "no difference"."""

    p_value: float


def bootstrap_intervals(
    values: Floats, confidence: float, num_bootstrap: int, seed: int = 0
) -> list[Interval]:
    """Percentile intervals of the mean over problems, one per column of `values`.

    With fewer than two problems nothing is known of their spread: the interval is [0, 1]. Where all
    problems agree the bootstrap sees no spread, which is not certainty: see `share_limits`.
    """
    means = values.mean(axis=0)
    draws = resampled_means(values, num_bootstrap, seed)
    return intervals(means, *share_limits(draws, confidence, len(values)))


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
    limits = share_limits(draws[:, :1] / draws[:, 1:], confidence, num_counted)
    return intervals([ratio], *limits)[0]


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


@dataclass(frozen=True)
class Comparison(Difference):
    """left - right over units that both were measured on.

    Attributes:
        num_units: problems, or clusters of pairs that share a prompt.
        test: "mcnemar" or "sign flip".
        test_p_value: two-sided.
        detectable: smallest true difference that a study of this size and spread shows with 80 %
            power at this confidence; None for fewer than two units.
    """

    num_units: int
    test: str
    test_p_value: float
    detectable: float | None


def compare(
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    confidence: float = 0.95,
    num_bootstrap: int = 10_000,
    seed: int = 0,
    clusters: npt.ArrayLike | None = None,
) -> Comparison:
    """Compare figures by problem or by pair [units], higher is better.

    With `clusters` [units], what shares a label is resampled and flipped together, and the mean is
    still over units. Raises InputError for shapes that do not fit and for NaN.
    """
    one, other = np.asarray(left, float), np.asarray(right, float)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise InputError(
            f"Compared are two lists of one length, not arrays {one.shape} and {other.shape}."
        )
    gaps = (one - other)[:, None]
    return compare_gaps(gaps, confidence, num_bootstrap, seed, clusters)[0]


def compare_gaps(
    gaps: Floats,
    confidence: float = 0.95,
    num_bootstrap: int = 10_000,
    seed: int = 0,
    clusters: npt.ArrayLike | None = None,
) -> list[Comparison]:
    """The same for each column of `gaps` = left - right [units, comparisons]."""
    if np.isnan(gaps).any():
        row = int(np.isnan(gaps).any(axis=1).argmax())
        raise InputError(f"Unit {row} of a comparison has no value.")
    if clusters is not None:
        sums, _ = cluster_sums(gaps, clusters)
        # Sums per cluster, scaled so that their mean is the mean over units.
        gaps = sums * (len(sums) / len(gaps))
    intervals = differences(gaps, confidence, num_bootstrap, seed)
    tests = significance(gaps, num_bootstrap, seed)
    return [
        Comparison(
            **asdict(interval),
            num_units=len(gaps),
            test=test,
            test_p_value=p_value,
            detectable=detectable_difference(column, confidence) if len(gaps) > 1 else None,
        )
        for interval, (test, p_value), column in zip(intervals, tests, gaps.T, strict=True)
    ]


def significance(gaps: Floats, num_draws: int, seed: int = 0) -> list[tuple[str, float]]:
    """(name of the right test, two-sided p) by column of paired differences [units, columns].

    Signs are flipped in all ways where those are at most `num_draws`, else in so many random ones.
    """
    found = []
    for column in gaps.T:
        differ = column[np.abs(column) > _EQUAL]
        if len(differ) and np.ptp(np.abs(differ)) >= _EQUAL * np.abs(differ).max():
            p_value = permutation_test(
                (differ,), np.mean, permutation_type="samples", vectorized=True,
                n_resamples=num_draws, batch=max(1, _BLOCK // len(differ)),
                rng=np.random.default_rng(seed),
            ).pvalue  # fmt: skip
            found.append(("sign flip", float(p_value)))
        else:
            found.append(("mcnemar", mcnemar(int((differ > 0).sum()), int((differ < 0).sum()))))
    return found


def mcnemar(num_left: int, num_right: int) -> float:
    """Exact two-sided p: units that only the left, and only the right model gets right."""
    num = num_left + num_right
    return float(binomtest(num_left, num).pvalue) if num else 1.0


def detectable_difference(gaps: npt.ArrayLike, confidence: float = 0.95) -> float:
    """Smallest true mean difference that n units with the spread of `gaps` [n] show: of so many
    standard errors that it is found significant with a probability of 80 %.

    Where all gaps are equal the spread is not known; what the rule of three leaves open is
    returned. Raises InputError for fewer than two units.
    """
    values = np.asarray(gaps, float)
    if len(values) < 2:
        raise InputError(f"{len(values)} units have no spread.", "Compare on at least two.")
    if np.ptp(values) < 1e-12:
        return unseen_share(len(values), confidence)
    quantiles = float(ndtri(0.5 + confidence / 2) + ndtri(0.8))
    return quantiles * float(values.std(ddof=1)) / math.sqrt(len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: at most 0.05 means different, whichever others are."""
    p = np.asarray(p_values, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"p-values lie between 0 and 1, these do not: {list(p_values)}.")
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    result = np.empty_like(scaled)
    result[order] = np.minimum(scaled, 1.0)
    return result.tolist()


def note(p_values: Sequence[float], alpha: float = 0.05) -> str:
    """One sentence on what is left of single comparisons when all are taken together."""
    num, single = len(p_values), sum(p <= alpha for p in p_values)
    together = sum(p <= alpha for p in holm(p_values))
    return (
        f"Of {num} comparisons {single} have p <= {alpha:g} by themselves; {num * alpha:.1f} would "
        f"by chance alone if nothing differed. Allowing for their number (Holm) {together} do."
    )
