"""What law a scaling curve follows, and whether the data can tell. Paper, Figure 5.

The error 1 - accuracy at x pairs is fitted as

    power law   b x^-c              falls for ever: "no diminishing returns"
    saturating  f + b x^-c          ends at the floor f

by weighted least squares; for a given exponent both are linear, so only exponents are searched for.
Every draw of the curve is fitted again, which gives the intervals. The verdict is "saturating"
where the floor's interval lies above zero, "power law" where it leaves room for less than half of
the smallest error seen, "falling" where the trend is below zero, for which neither is a law, and
"undecided" otherwise. A fit is admitted first: it is "undecided" as well below four sizes, with
fewer trainings of a size than say anything of others, where the trend's own interval includes zero,
where the exponent lies at an edge of its range, and where the floor lies above an error that was
seen. Beside it stands a measure without a law: the curvature of accuracy over doublings, below zero
where each doubling brings less.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codepmp_ray.analysis.curves import Curve
from codepmp_ray.errors import InputError
from codepmp_ray.estimates import MIN_TRAININGS
from codepmp_ray.resampling import Floats, Interval, intervals, percentiles

UNDECIDED, POWER, SATURATING, FALLING = "undecided", "power law", "saturating", "falling"
MIN_SIZES = 4
EXPONENT_RANGE = (0.01, 4.0)  # where exponents are searched for
_EXPONENTS = np.geomspace(*EXPONENT_RANGE, 600)  # a per cent apart
_ROOM = 0.5
_FLOOR_SEEN = 0.01  # of the smallest error: less is no floor
_EDGE = 1.05  # a factor: exponents nearer to an edge of their range were stopped by it


@dataclass(frozen=True)
class Law:
    """Parameters with intervals; `rms` is the weighted root mean square residual, in accuracy."""

    floor: Interval
    factor: Interval
    exponent: Interval
    rms: float

    def accuracy(self, sizes: Floats) -> Floats:
        """Of the fit to the measured means."""
        return 1 - self.floor.mean - self.factor.mean * np.asarray(sizes) ** -self.exponent.mean


@dataclass(frozen=True)
class ScalingVerdict:
    """`per_doubling` is the mean gain in accuracy, `curvature` its change from one doubling to the
    next; both None below three sizes, the laws below MIN_SIZES."""

    verdict: str
    reason: str
    per_doubling: Interval | None
    curvature: Interval | None
    power: Law | None
    saturating: Law | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def fit_scaling(curve: Curve, confidence: float = 0.95) -> ScalingVerdict:
    """Both laws, the trend and the verdict of a curve of accuracies between 0 and 1."""
    if (curve.mean < 0).any() or (curve.mean > 1).any():
        raise InputError(f"Accuracies lie between 0 and 1, not {curve.mean.tolist()}.")
    num = len(curve.sizes)
    if num < 3:
        reason = f"{num} sizes show no law; at least {MIN_SIZES} are needed."
        return ScalingVerdict(UNDECIDED, reason, None, None, None, None)
    if not curve.is_known:
        reason = (
            f"{curve.num_trainings} training(s) of every size are no result: others may give "
            f"another curve; {MIN_TRAININGS} are needed."
        )
        return ScalingVerdict(UNDECIDED, reason, None, None, None, None)
    doublings = np.log2(curve.sizes)
    weights = _weights(curve)
    slope = _polynomial(curve, doublings, weights, 1, confidence)
    bend = _polynomial(curve, doublings, weights, 2, confidence)
    if num < MIN_SIZES:
        reason = f"{num} sizes cannot tell a floor from a slow power law; {MIN_SIZES} are needed."
        return ScalingVerdict(UNDECIDED, reason, slope, bend, None, None)
    power = _law(curve, weights, False, confidence)
    saturating = _law(curve, weights, True, confidence)
    verdict, reason = _decide(curve, slope, power, saturating)
    return ScalingVerdict(verdict, reason, slope, bend, power, saturating)


def _decide(curve: Curve, slope: Interval, power: Law, saturating: Law) -> tuple[str, str]:
    smallest = float((1 - curve.mean).min())
    floor = saturating.floor
    trend = (
        f"A doubling changes accuracy by {100 * slope.mean:+.2f} points, interval "
        f"{100 * slope.low:+.2f} to {100 * slope.high:+.2f}: "
    )
    if slope.low <= 0 <= slope.high:
        return UNDECIDED, f"{trend}no trend is seen."
    if slope.high < 0:
        return FALLING, f"{trend}accuracy falls, and no law of a falling error fits."
    shown = (f"the floor of the error is {100 * floor.mean:.1f} %, interval {100 * floor.low:.1f} "
             f"to {100 * floor.high:.1f}, and the smallest error seen "
             f"{100 * smallest:.1f}")  # fmt: skip
    if floor.mean > smallest:
        return UNDECIDED, f"An error below the floor was seen, so there is none: {shown}."
    is_floor = floor.low > _FLOOR_SEEN * smallest
    if not is_floor and floor.high >= _ROOM * smallest:
        return UNDECIDED, f"Both laws fit: {shown}."
    exponent = (saturating if is_floor else power).exponent.mean
    low, high = EXPONENT_RANGE
    if not low * _EDGE < exponent < high / _EDGE:
        return UNDECIDED, (
            f"The exponent {exponent:.3g} lies at the edge of its range, {low:g} to {high:g}: the "
            f"fit was stopped there ({shown})."
        )
    if is_floor:
        return SATURATING, f"It ends above zero: {shown}."
    return POWER, f"Less than half of what is left can be a floor: {shown}."


def _weights(curve: Curve) -> Floats:
    """One over the variance of each mean; equal ones where nothing varies."""
    variances = curve.draws.var(axis=0)
    if variances.max() <= 0:
        return np.ones(len(variances))
    weights = 1 / np.maximum(variances, 1e-3 * variances.max())
    return weights / weights.sum()


def _polynomial(
    curve: Curve, doublings: Floats, weights: Floats, degree: int, confidence: float
) -> Interval:
    """Leading coefficient of a weighted polynomial in log2 of the size."""
    root = np.sqrt(weights)
    design = np.vander(doublings - doublings.mean(), degree + 1) * root[:, None]
    leading = np.linalg.pinv(design)[0] * root
    limits = percentiles((curve.draws @ leading)[:, None], confidence)
    return intervals([curve.mean @ leading], *limits)[0]


def _law(curve: Curve, weights: Floats, has_floor: bool, confidence: float) -> Law:
    errors = 1 - np.concatenate([curve.mean[None, :], curve.draws])
    fitted, residuals = _fit(errors, curve.sizes, weights, has_floor)
    floor, factor, exponent = intervals(fitted[0], *percentiles(fitted[1:], confidence))
    return Law(floor, factor, exponent, float(np.sqrt(residuals[0] / weights.sum())))


def _fit(errors: Floats, sizes: Floats, weights: Floats, has_floor: bool) -> tuple[Floats, Floats]:
    """([rows, floor factor exponent], weighted squares [rows]) of errors [rows, sizes].

    Neither floor nor factor is below zero: where the free solution is, the other one alone is best.
    """
    # Powers are taken of sizes over the smallest, so that none is tiny.
    logs = np.log(sizes / sizes[0])

    def solved(exponents: Floats) -> tuple[Floats, Floats, Floats]:
        return _solve(errors, np.exp(-exponents[:, None] * logs), weights, has_floor)

    squares = np.stack([solved(np.full(len(errors), c))[2] for c in _EXPONENTS], axis=1)
    exponents = _EXPONENTS[squares.argmin(axis=1)]
    floor, factor, squares = solved(exponents)
    return np.stack([floor, factor * sizes[0] ** exponents, exponents], axis=1), squares


def _solve(
    errors: Floats, powers: Floats, weights: Floats, has_floor: bool
) -> tuple[Floats, Floats, Floats]:
    """(floor, factor, weighted squares) [rows] of errors [rows, sizes] at given powers."""
    factor = (errors * powers) @ weights / (powers**2 @ weights)
    floor = np.zeros(len(errors))
    if has_floor:
        total = weights.sum()
        mean, centre = errors @ weights / total, powers @ weights / total
        apart = powers - centre[:, None]
        slope = (errors * apart) @ weights / (apart**2 @ weights)
        level = mean - slope * centre
        # Below zero the best is at zero: no floor, or no fall.
        floor = np.where(slope < 0, mean, np.maximum(level, 0.0))
        factor = np.where(slope < 0, 0.0, np.where(level < 0, factor, slope))
    gaps = errors - floor[:, None] - factor[:, None] * powers
    return floor, factor, gaps**2 @ weights
