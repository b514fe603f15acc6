"""How much of a score follows style, beyond what follows correctness.

Everything is looked at within a problem: what makes one problem's answers score higher than
another's does not choose between answers. Scores and features become ranks within their problem,
and the correctness is taken out of both before they are correlated (partial rank correlation).
Jointly, the share of the scores' variance that style explains is the R2 of a regression, and its
own share is what it adds to the correctness. Intervals come from resampling problems.

R2 of many features is above zero by chance, too; `by_chance` is what a score without any relation
would give: number of features over number of answers beyond the first of each problem.

The score by length, for right and wrong answers apart: what the report plots.

Scores are above their problem's mean, so that problems with long answers do not show as length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.audit.within import (
    centred,
    checked_answers,
    correlation,
    explained_share,
    gram_by_problem,
    numbered,
    ranks_within,
    ratio,
    sums_by_problem,
)
from codepmp_ray.resampling import Floats, Interval, intervals, percentiles, resampled

_MAX_BINS, _MIN_IN_BIN, _MAX_POINTS = 8, 5, 240


@dataclass(frozen=True)
class Dependence:
    """Within problems.

    Attributes:
        correlations: of the score's rank with each feature's, given correctness.
        correctness: of the score's rank with correctness.
        style_r2: share of the score's variance that all features explain together.
        added_r2: what they explain beyond correctness.
        by_chance: of style_r2.
    """

    correlations: dict[str, Interval]
    correctness: Interval
    style_r2: Interval
    added_r2: Interval
    by_chance: float
    num_problems: int
    num_answers: int


def style_dependence(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    features: Mapping[str, npt.ArrayLike],
    problems: Sequence[str] | npt.NDArray[np.str_],
    confidence: float = 0.95,
    num_bootstrap: int = 1_000,
    seed: int = 0,
) -> Dependence:
    """From one entry per answer [answers].

    Problems with one answer say nothing and are left out. Raises InputError when no problem has
    two, for lists of unequal length and for scores that are not numbers.
    """
    score, right = np.asarray(scores, float), np.asarray(correct, float)
    names = list(features)
    table = np.stack([score, right, *(np.asarray(features[name], float) for name in names)], axis=1)
    problem = numbered(problems)
    if len(problem) != len(table) or not np.isfinite(table).all():
        raise InputError(
            "Scores, correctness and features need a finite number for each answer, and each a "
            "problem."
        )
    keep = np.bincount(problem)[problem] > 1
    if not keep.any():
        raise InputError("No problem has two answers: nothing varies within one.")
    table, problem = table[keep], np.unique(problem[keep], return_inverse=True)[1]
    ranked = table.copy()
    for column in (0, *range(2, table.shape[1])):
        ranked[:, column] = ranks_within(table[:, column], problem)
    num_style = len(names)
    gram = gram_by_problem(centred(ranked, problem), problem)
    figures = _Figures(num_style)
    point = figures(gram.sum(axis=0, keepdims=True))[0]
    limits = percentiles(resampled(gram, num_bootstrap, figures, seed), confidence)
    made = intervals(point, *limits)
    num_problems = int(problem.max()) + 1
    return Dependence(
        correlations=dict(zip(names, made[:num_style], strict=True)),
        correctness=made[num_style],
        style_r2=made[num_style + 1],
        added_r2=made[num_style + 2],
        by_chance=min(1.0, num_style / max(len(table) - num_problems, 1)),
        num_problems=num_problems,
        num_answers=len(table),
    )


@dataclass(frozen=True)
class _Figures:
    """From Gram matrices [rows, d * d] of (score, correct, features), in this order."""

    num_style: int

    def __call__(self, sums: Floats) -> Floats:
        width = 2 + self.num_style
        gram = sums.reshape(len(sums), width, width)
        style = list(range(2, 2 + self.num_style))
        correct = explained_share(gram, [1])
        both = explained_share(gram, [1, *style])
        found = [_partial(gram, column) for column in style]
        found.append(correlation(gram[:, 0, 1], gram[:, 0, 0], gram[:, 1, 1]))
        found += [explained_share(gram, style), np.maximum(both - correct, 0.0)]
        return np.stack(found, axis=1)


def _partial(gram: Floats, column: int) -> Floats:
    """Correlation of columns 0 and `column` with column 1 taken out of both [rows]."""
    variance = gram[:, 1, 1]
    inverse = ratio(np.ones_like(variance), variance)

    def rest(i: int, j: int) -> Floats:
        return gram[:, i, j] - gram[:, i, 1] * gram[:, j, 1] * inverse

    return correlation(rest(0, column), rest(0, 0), rest(column, column))


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
