"""A rule that tells right from wrong answers by style alone: what a score has to lie above.

Logistic regression on counts of style, of differences between right and wrong answers to one
question, so that what questions differ in does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from codepmp_ray.evaluation.audit.features import style_features
from codepmp_ray.resampling import Floats

_RIDGE = 0.01
_COUNTED = re.compile(r"\d"), re.compile("="), re.compile(r"\n\n"), re.compile(r"\bStep\b")
_SAID = ("The answer is", "####", "\\boxed")


def style_table(texts: Sequence[str]) -> Floats:
    """Counts of style [texts, features]: nothing that says whether an answer is right."""
    return np.array([
        [
            *style_features(text).values(),
            *(len(pattern.findall(text)) for pattern in _COUNTED),
            *(said in text for said in _SAID),
        ]
        for text in texts
    ], float)  # fmt: skip


def style_gap(table: Floats, right: npt.ArrayLike) -> Floats:
    """Mean of the right answers to one question less that of the wrong ones [features], of their
    `style_table`; nothing where all or none are right."""
    marks = np.asarray(right, bool)
    if marks.all() or not marks.any():
        return np.zeros(table.shape[1])
    return table[marks].mean(axis=0) - table[~marks].mean(axis=0)


def fitted_weights(gaps: Floats) -> Floats:
    """Weights [features] under which most of `gaps` [pairs, features] are positive."""
    if not len(gaps):
        return np.zeros(gaps.shape[-1])
    scale = gaps.std(axis=0) + np.abs(gaps).max(axis=0) * 1e-3 + 1e-9
    return ridge_logistic(gaps / scale) / scale


def ridge_logistic(table: Floats) -> Floats:
    """Weights [features] of a logistic regression without intercept, by which most rows of `table`
    [pairs, features] are positive. Rotated features give the rotated weights."""

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = table @ weights
        slope = -0.5 * (1 - np.tanh(margins / 2))
        value = np.logaddexp(0, -margins).mean() + _RIDGE * (weights**2).sum()
        return float(value), table.T @ slope / len(table) + 2 * _RIDGE * weights

    return minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x
