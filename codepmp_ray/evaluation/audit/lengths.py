"""The score by length, for right and wrong answers apart: what the report plots.

Scores are above their problem's mean, so that problems with long answers do not show as length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.audit.within import (
    centred,
    checked_answers,
    numbered,
    ratio,
    sums_by_problem,
)
from codepmp_ray.resampling import Floats, percentiles, resampled

_MAX_BINS, _MIN_IN_BIN, _MAX_POINTS = 8, 5, 240


def score_by_length(
    lengths: npt.ArrayLike,
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    problems: Sequence[str],
    confidence: float = 0.95,
    num_bootstrap: int = 1_000,
    seed: int = 0,
) -> dict[str, Any]:
    """JSON values: `lines` of "right" and "wrong" answers, each with the mean length, score, its
    interval over problems and number of answers by bin (equally many answers in each of both
    together); `points`, some single answers as [length, score, is right].

    Raises InputError as `checked_answers`.
    """
    score, right = checked_answers(scores, correct, problems)
    length, problem = np.asarray(lengths, float), numbered(problems)
    above = centred(score[:, None], problem)[:, 0]
    edges = np.unique(np.quantile(length, np.linspace(0, 1, _MAX_BINS + 1)))
    bins = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, max(len(edges) - 2, 0))
    lines = {}
    for name, is_on in (("right", right > 0.5), ("wrong", right <= 0.5)):
        inside = (bins[:, None] == np.arange(max(len(edges) - 1, 1))) & is_on[:, None]
        num = inside.sum(axis=0)
        inside = inside[:, num >= _MIN_IN_BIN].astype(float)
        sums = sums_by_problem(np.concatenate([inside * above[:, None], inside], axis=1), problem)
        lines[name] = _line(sums, inside, length, confidence, num_bootstrap, seed)
    shown = np.unique(np.linspace(0, len(length) - 1, min(len(length), _MAX_POINTS)).astype(int))
    return {
        "lines": lines,
        "points": [[float(length[i]), float(above[i]), bool(right[i] > 0.5)] for i in shown],
    }


def _line(
    sums: Floats,
    inside: Floats,
    length: Floats,
    confidence: float,
    num_bootstrap: int,
    seed: int,
) -> dict[str, list[float]]:
    if not inside.shape[1]:
        return {"length": [], "score": [], "low": [], "high": [], "num": []}

    def means(columns: Floats) -> Floats:
        top, bottom = np.split(columns, 2, axis=1)
        return ratio(top, bottom, empty=np.nan)

    low, high = percentiles(resampled(sums, num_bootstrap, means, seed), confidence)
    num = inside.sum(axis=0)
    return {
        "length": (inside.T @ length / num).tolist(),
        "score": means(sums.sum(axis=0, keepdims=True))[0].tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "num": num.astype(int).tolist(),
    }
