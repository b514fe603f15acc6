"""How small a difference a comparison of this size can show.

Paired differences over n problems have a mean with standard error s / sqrt(n). A true difference of
(z_{1 - alpha/2} + z_{power}) standard errors is found significant with probability `power`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from codepmp_ray.errors import InputError
from codepmp_ray.resampling import unseen_share


def detectable_difference(
    gaps: npt.ArrayLike, confidence: float = 0.95, power: float = 0.8
) -> float:
    """Smallest true mean difference that n units with the spread of `gaps` [n] show.

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
