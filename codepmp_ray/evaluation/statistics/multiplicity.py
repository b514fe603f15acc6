"""Several comparisons at once: p-values that allow for their number.

Holm 1979 bounds the chance of any false "different" among all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codepmp_ray.errors import InputError


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
