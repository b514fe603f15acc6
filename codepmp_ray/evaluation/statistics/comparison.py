"""Is one model better than another on the same problems?

Three figures answer: the bootstrap interval of the mean difference (how large), a test that assumes
only that under "no difference" the two labels could be swapped (how surprising), and the smallest
difference that this many problems would have shown (how much a "no" means).

The test is McNemar's exact one where each unit is won, lost or tied (pairs, single picks): the
losses among the units that differ are binomial. Expected accuracies by problem are fractions, which
McNemar's test does not know; their signs are flipped at random instead (Fisher's randomisation
test), all ways for few units. Of equal gaps the second is the first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics.intervals import Difference, differences
from codepmp_ray.evaluation.statistics.power import detectable_difference
from codepmp_ray.resampling import Floats, cluster_sums

_MAX_ENUMERATED = 12  # 2^12 ways to flip
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
    """(name of the right test, two-sided p) by column of paired differences [units, columns]."""
    flipped = sign_flip_tests(gaps, num_draws, seed)
    found = []
    for column, p_value in zip(gaps.T, flipped, strict=True):
        sizes = np.abs(column[np.abs(column) > _EQUAL])
        if len(sizes) and np.ptp(sizes) >= _EQUAL * sizes.max():
            found.append(("sign flip", p_value))
        else:
            wins, losses = int((column > _EQUAL).sum()), int((column < -_EQUAL).sum())
            found.append(("mcnemar", mcnemar(wins, losses)))
    return found


def mcnemar(num_left: int, num_right: int) -> float:
    """Exact two-sided p: units that only the left, and only the right model gets right."""
    num = num_left + num_right
    return float(binomtest(num_left, num).pvalue) if num else 1.0


def sign_flip_tests(gaps: Floats, num_draws: int = 10_000, seed: int = 0) -> list[float]:
    """Two-sided p of the mean by column of `gaps` [units, columns], flipping the units' signs.

    All 2^n ways for up to 12 units that differ; else `num_draws` random ones, the observed one
    among them, so p is never below 1 / (num_draws + 1).
    """
    values = np.where(np.abs(gaps) > _EQUAL, gaps, 0.0)
    values = values[np.abs(values).any(axis=1)]
    totals = values.sum(axis=0)
    limits = np.abs(totals) * (1 - _EQUAL)
    if len(values) <= _MAX_ENUMERATED:
        ways = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return (np.abs(totals - 2 * (ways @ values)) >= limits).mean(axis=0).tolist()
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(values))
    hits = np.zeros(values.shape[1])
    for start in range(0, num_draws, step):
        rows = min(step, num_draws - start)
        flips = generator.integers(2, size=(rows, len(values)), dtype=np.int8).astype(float)
        hits += (np.abs(totals - 2 * (flips @ values)) >= limits).sum(axis=0)
    return ((hits + 1) / (num_draws + 1)).tolist()
