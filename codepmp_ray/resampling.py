"""The bootstrap: means and ratios of what was measured, over resampled units, and their intervals.

A unit is what is independent of the others: a problem, a prompt with all its pairs, a document.
Units are drawn with replacement as often as there are units. A resample is a row of counts, so any
number of figures moves together with one matrix product.

Source: Efron and Tibshirani 1993, percentile intervals; Owen 2007 for two crossed factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_MAX_CELLS = 4_000_000  # counts held at a time: resamples x units


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


def intervals(means: npt.ArrayLike, low: Floats, high: Floats) -> list[Interval]:
    """Of figures with their limits, each [figures]."""
    ends = zip(np.asarray(means, float), low, high, strict=True)
    return [Interval(float(mean), float(a), float(b)) for mean, a, b in ends]


def resample_counts(num_units: int, num_bootstrap: int, seed: int = 0) -> Iterator[Floats]:
    """How often each unit is in each resample, as blocks [resamples, units] of `num_bootstrap`."""
    generator = np.random.default_rng(seed)
    step = max(1, min(num_bootstrap, _MAX_CELLS // max(num_units, 1)))
    for start in range(0, num_bootstrap, step):
        rows = min(step, num_bootstrap - start)
        drawn = generator.integers(num_units, size=(rows, num_units))
        drawn += np.arange(rows)[:, None] * num_units
        counts = np.bincount(drawn.ravel(), minlength=rows * num_units)
        yield counts.reshape(rows, num_units).astype(float)


def resampled_means(values: Floats, num_bootstrap: int, seed: int = 0) -> Floats:
    """Means [num_bootstrap, columns] of `values` [units, columns] over resampled units."""
    return resampled(values, num_bootstrap, lambda sums: sums / len(values), seed)


def resampled(
    columns: Floats, num_bootstrap: int, figures: Callable[[Floats], Floats], seed: int = 0
) -> Floats:
    """`figures` [resamples, any] of the column sums [resamples, columns] over resampled units."""
    blocks = resample_counts(len(columns), num_bootstrap, seed)
    return np.concatenate([figures(counts @ columns) for counts in blocks])


def percentiles(draws: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Lower and upper limits [columns] of the central `confidence` of `draws` [resamples, columns].

    Draws that are not a number (a ratio of nothing) are left out.
    """
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail], axis=0)
    return low, high


def share_limits(
    draws: Floats, confidence: float, num_units: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """`percentiles` of shares, within [0, 1], and never a point.

    Where no resample moves a figure it is widened by `unseen_share` of its `num_units` [columns];
    below two units nothing is known, and the limits are 0 and 1.
    """
    units = np.broadcast_to(np.asarray(num_units, float), draws.shape[1:])
    low, high = percentiles(draws, confidence)
    slack = np.where(high - low < 1e-12, unseen_share(np.maximum(units, 1), confidence), 0.0)
    low, high = np.maximum(low - slack, 0.0), np.minimum(high + slack, 1.0)
    return np.where(units < 2, 0.0, low), np.where(units < 2, 1.0, high)


def cluster_sums(values: Floats, clusters: npt.ArrayLike) -> tuple[Floats, Floats]:
    """(sums [clusters, columns] of `values` [rows, columns], rows in each cluster [clusters])."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    num = int(index.max()) + 1 if len(index) else 0
    sums = np.zeros((num, values.shape[1]))
    np.add.at(sums, index, values)
    return sums, np.bincount(index, minlength=num).astype(float)


def unseen_share(num_units: Any, confidence: float) -> Any:
    """Share of units of another kind that `num_units` alike ones do not exclude; of one or many.

    The upper Clopper-Pearson limit for none in n (the "rule of three"): it widens an interval
    that resampling would give no width because every unit came out the same.
    """
    return 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / num_units)
