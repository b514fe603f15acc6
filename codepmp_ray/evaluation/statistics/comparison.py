"""Is one model better than another on the same problems?

Three figures answer: the bootstrap interval of the mean difference (how large), a test that assumes
only that under "no difference" the two labels could be swapped (how surprising), and the smallest
difference that this many problems would have shown (how much a "no" means).

The test is McNemar's exact one where each unit is won, lost or tied (pairs, single picks): the
losses among the units that differ are binomial. Expected accuracies by problem are fractions, which
McNemar's test does not know; their signs are flipped at random instead (Fisher's randomisation
test). Of equal gaps the second is the first.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import binomtest, permutation_test

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics.intervals import Difference, differences
from codepmp_ray.resampling import Floats, cluster_sums, unseen_share

_BLOCK = 2_000_000
_EQUAL = 1e-9


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


def detectable_difference(
    gaps: npt.ArrayLike, confidence: float = 0.95, power: float = 0.8
) -> float:
    """Smallest true mean difference that n units with the spread of `gaps` [n] show: of so many
    standard errors that it is found significant with probability `power`.

    Where all gaps are equal the spread is not known; what the rule of three leaves open is
    returned. Raises InputError for fewer than two units.
    """
    values = np.asarray(gaps, float)
    if len(values) < 2:
        raise InputError(f"{len(values)} units have no spread.", "Compare on at least two.")
    if np.ptp(values) < 1e-12:
        return unseen_share(len(values), confidence)
    quantiles = float(ndtri(0.5 + confidence / 2) + ndtri(power))
    return quantiles * float(values.std(ddof=1)) / math.sqrt(len(values))
