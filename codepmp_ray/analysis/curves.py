"""A figure at several sizes (samples, pairs), measured on the same problems, and draws of it.

What is fitted to a curve is fitted again to every draw: that is its interval. Of one thing at every
size the problems are resampled, together for all sizes. Of trainings the draws are those of
Student's t with the covariances between sizes over problems and over trainings: the same error as
`estimates.estimate` gives a single mean.

How many times more finetuning samples the model without PMP needs. Paper, Figures 4, 8 and 9.

The figure reads 80 times off one point: 0.5k samples with PMP reach what 40k reach without. Here
all sizes give one multiple: with m times the samples at every size, the curve without PMP is on
average as high as the one with it. Its interval holds the multiples for which the average
difference may be nothing, by the same estimate as every other comparison of trainings; so it leaves
out 1 where the two curves are told apart. What would take more, or fewer, samples than were tried
bounds the multiple from one side only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.estimates import MIN_TRAININGS, estimate
from codepmp_ray.resampling import Floats, resampled_means

_STEPS = 8  # to a doubling
_EQUAL = 1e-9


@dataclass(frozen=True)
class Multiple:
    """Attributes:
    multiple: samples without PMP for the same figure, over those with it. inf: more than any
        that was tried; 0: fewer.
    low, high: its interval, with the same meaning of inf and 0.
    largest: the largest multiple that could have been seen; 1 / largest is the smallest.
    """

    multiple: float
    low: float
    high: float
    largest: float

    @property
    def text(self) -> str:
        return f"{self._shown(self.multiple)} ({self._shown(self.low)} to {self._shown(self.high)})"

    def as_json(self) -> dict[str, float | str | None]:
        """JSON has no inf: null, and `text` says on which side."""
        known = {n: v if math.isfinite(v) and v else None for n, v in asdict(self).items()}
        return {**known, "text": self.text}

    def _shown(self, value: float) -> str:
        if math.isinf(value):
            return f"more than {self.largest:.3g}"
        return f"{value:.3g}" if value else f"less than {1 / self.largest:.3g}"


def equivalent_samples(
    sizes: Sequence[float],
    with_pmp: Sequence[Floats],
    without_pmp: Sequence[Floats],
    confidence: float = 0.95,
) -> Multiple:
    """From figures [trainings, problems] of both models at each of the increasing sizes.

    Between two sizes the figures change with the logarithm of the size. Raises InputError for a
    single size, and what `estimates.estimate` raises.
    """
    if len(sizes) < 2:
        raise InputError("A multiple of samples needs figures at two sizes or more.")
    logs = np.log2(np.asarray(sizes, float))
    span = float(logs[-1] - logs[0])
    shifts = np.linspace(-span, span, 2 * max(1, round(_STEPS * span)) + 1)
    higher, lower = np.stack(with_pmp), np.stack(without_pmp)
    gaps = [estimate(_gap(logs, higher, lower, shift)) for shift in shifts]
    means = np.array([gap.mean for gap in gaps])
    limits = [gap.interval(confidence) for gap in gaps]
    # Below the interval the curve without PMP is surely lower, above it surely higher.
    low, point, high = (
        _first(shifts, reached)
        for reached in (
            [limit.low <= _EQUAL for limit in limits],
            means <= _EQUAL,
            [limit.high < -_EQUAL for limit in limits],
        )
    )
    return Multiple(point, low, high, float(sizes[-1] / sizes[0]))


def _first(shifts: Floats, reached: npt.ArrayLike) -> float:
    """2 to the first shift at which it is so; 0 where it is from the beginning, inf where never."""
    places = np.flatnonzero(reached)
    if not len(places):
        return math.inf
    return 0.0 if places[0] == 0 else float(2 ** shifts[places[0]])


def _gap(logs: Floats, higher: Floats, lower: Floats, shift: float) -> Floats:
    """Mean difference [trainings, problems] over the sizes whose multiple was tried."""
    wanted = logs + shift
    known = (wanted >= logs[0] - _EQUAL) & (wanted <= logs[-1] + _EQUAL)
    place = np.clip(np.searchsorted(logs, wanted[known] - _EQUAL), 1, len(logs) - 1)
    share = (wanted[known] - logs[place - 1]) / (logs[place] - logs[place - 1])
    share = np.clip(share, 0, 1)[:, None, None]
    return (higher[known] - (1 - share) * lower[place - 1] - share * lower[place]).mean(axis=0)


@dataclass(frozen=True)
class Curve:
    """`mean` [sizes] and `draws` [draws, sizes] at increasing `sizes`.

    `num_trainings` at each size; None where the figures are of one thing each.
    """

    sizes: Floats
    mean: Floats
    draws: Floats
    num_trainings: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether the draws allow for other trainings, where there are trainings."""
        return self.num_trainings is None or self.num_trainings >= MIN_TRAININGS


def curve(
    sizes: Sequence[float], values: Sequence[Floats], num_draws: int = 2_000, seed: int = 0
) -> Curve:
    """From figures by problem: one array [problems], or [trainings, problems], for each size.

    Raises InputError for sizes that do not increase and for figures of other problems.
    """
    places = np.asarray(sizes, float)
    if len(places) != len(values) or not len(places):
        raise InputError(f"{len(values)} figures were given for {len(places)} sizes.")
    if not (np.diff(places) > 0).all() or places[0] <= 0:
        raise InputError(f"Sizes must be positive and increase, not {places.tolist()}.")
    tables = [np.asarray(value, float) for value in values]
    if len(shapes := {table.shape for table in tables}) > 1 or 0 in tables[0].shape or any(
        np.isnan(table).any() for table in tables
    ):  # fmt: skip
        raise InputError(
            f"Every size needs a figure for the same problems; there are {sorted(shapes)} and no "
            "NaN is allowed.",
        )
    stacked = np.stack(tables)
    if stacked.ndim == 2:
        draws = resampled_means(stacked.T, num_draws, seed)
        return Curve(places, stacked.mean(axis=1), draws)
    mean, num_trainings = stacked.mean(axis=(1, 2)), stacked.shape[1]
    return Curve(places, mean, mean + _noise(stacked, num_draws, seed), num_trainings)


def _noise(stacked: Floats, num_draws: int, seed: int) -> Floats:
    """Errors of the means [draws, sizes] of [sizes, trainings, problems]."""
    num_sizes, num_trainings, num_problems = stacked.shape
    covariance = np.zeros((num_sizes, num_sizes))
    for means, num in ((stacked.mean(axis=1), num_problems), (stacked.mean(axis=2), num_trainings)):
        if num > 1:
            covariance += np.cov(means).reshape(num_sizes, num_sizes) / num
    generator = np.random.default_rng(seed)
    df = max(num_trainings - 1, 1)
    normal = generator.multivariate_normal(np.zeros(num_sizes), covariance, num_draws)
    return normal / np.sqrt(generator.chisquare(df, num_draws) / df)[:, None]
