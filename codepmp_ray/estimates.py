"""What several trainings say about a recipe: the mean, how sure it is, and when it says nothing.

Figures are [trainings, units]: every training (seed) was measured on the same problems or prompts.
Other units might have been asked, and another training of the same recipe comes out differently, so
the variance of the mean is the sum of both parts. Its quantile is Student's t with trainings - 1
degrees of freedom. Welch-Satterthwaite's larger number takes the spread of three trainings, small
by luck, for a known one, and calls 10 % of nothing a difference where 5 % are allowed.

Below MIN_TRAININGS nothing is known of other trainings: the error is infinite. So fewer trainings
never look more certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr, stdtrit

from codepmp_ray.errors import InputError
from codepmp_ray.resampling import Interval, unseen_share

MIN_TRAININGS = 3


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    error: standard error of the mean; infinite where it is not known.
    df: degrees of freedom of Student's t.
    """

    mean: float
    error: float
    df: int

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.error)

    @property
    def p_value(self) -> float:
        """Two-sided, for a true mean of zero."""
        return float(2 * stdtr(self.df, -abs(self.mean) / self.error))

    def interval(self, confidence: float) -> Interval:
        half = self._quantile(confidence) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half)

    def detectable(self, confidence: float, power: float = 0.8) -> float:
        """The smallest true mean that is told from zero with probability `power`."""
        return (self._quantile(confidence) + float(ndtri(power))) * self.error

    def power(self, difference: float, confidence: float) -> float:
        """Chance that a true mean of `difference` is told from zero."""
        return float(stdtr(self.df, abs(difference) / self.error - self._quantile(confidence)))

    def _quantile(self, confidence: float) -> float:
        return float(stdtrit(self.df, 0.5 + confidence / 2))


def estimate(values: npt.ArrayLike) -> Estimate:
    """The mean of figures [trainings, units]. Raises InputError for gaps and other shapes.

    Where no figure differs from another there is no spread to estimate from: the error is then what
    the rule of three leaves open at 95 %.
    """
    table = np.asarray(values, float)
    if table.ndim != 2 or 0 in table.shape or np.isnan(table).any():
        raise InputError(
            f"Several trainings are an array [trainings, units] without gaps, not {table.shape}."
        )
    num_trainings, num_units = table.shape
    df = max(num_trainings - 1, 1)
    if num_trainings < MIN_TRAININGS or num_units < 2:
        return Estimate(float(table.mean()), math.inf, df)
    of_units = table.mean(axis=0).var(ddof=1) / num_units
    of_trainings = table.mean(axis=1).var(ddof=1) / num_trainings
    error = math.sqrt(of_units + of_trainings)
    if error < 1e-12:
        error = unseen_share(num_units, 0.95) / float(stdtrit(df, 0.975))
    return Estimate(float(table.mean()), error, df)
