"""How far one random draw of k candidates wanders, as the paper's scripts take for each k.

Given the pool, a draw's pick for problem i is right with the exact expectation p_i, independently
of other problems, so the accuracy over n problems has the variance sum p_i (1 - p_i) / n^2. It
comes on top of what other problems would have given, and moves a curve up and down from k to k.
"""

from __future__ import annotations

import numpy as np

from codepmp_ray.resampling import Floats


def one_draw_sd(expected: Floats) -> Floats:
    """Standard deviation [ks] of the accuracy by one draw, from `best_of_k` [problems, ks]."""
    chance = np.clip(expected, 0.0, 1.0)
    return np.sqrt((chance * (1 - chance)).sum(axis=0)) / len(chance)
