"""Arithmetic within problems: ranks, means taken out, sums of products that resample together.

What makes one problem's answers score higher than another's does not choose between answers, so
every figure of the audit is taken within problems, or within cells of a problem (its equally right
answers). Sums by problem are what the bootstrap over problems draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.resampling import Floats

TINY = 1e-9
Index = npt.NDArray[np.intp]


def numbered(names: Sequence[object] | npt.NDArray[np.str_]) -> Index:
    """Equal numbers from 0 for equal names [answers]."""
    return np.unique(np.asarray(names).astype(str), return_inverse=True)[1]


def checked_answers(
    scores: npt.ArrayLike, correct: npt.ArrayLike, problems: Sequence[str]
) -> tuple[Floats, Floats]:
    """Scores and correctness as arrays [answers].

    Raises InputError for lists of unequal length, and names the first answer whose score is no
    finite number.
    """
    score, right = np.asarray(scores, float), np.asarray(correct, float)
    if not len(score) == len(right) == len(problems):
        raise InputError(
            f"{len(score)} scores, {len(right)} labels and {len(problems)} problems: each answer "
            "needs one of each."
        )
    if (bad := np.flatnonzero(~np.isfinite(score))).size:
        raise InputError(
            f"The score of answer {bad[0]}, to problem {problems[bad[0]]!r:.80}, is not a finite "
            "number.",
            "Look at the model: one that answers so is not fit to be served.",
        )
    return score, right


def cells(problem: Index, correct: npt.ArrayLike) -> Index:
    """Equal numbers for answers of one problem that are equally right [answers]."""
    _, kind = np.unique(np.asarray(correct, float), return_inverse=True)
    return np.unique(problem * (int(kind.max(initial=0)) + 1) + kind, return_inverse=True)[1]


def ranks_within(values: Floats, problem: Index) -> Floats:
    """Mean ranks over equal values, over the problem's number of answers: between 0 and 1."""
    order = np.lexsort((values, problem))
    sorted_values, owner = values[order], problem[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (sorted_values[1:] != sorted_values[:-1]) | (owner[1:] != owner[:-1])
    group = np.cumsum(starts) - 1
    sizes = np.bincount(owner)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.arange(len(order)) - first[owner]
    mean_place = (np.bincount(group, place) / np.bincount(group))[group]
    ranks = np.empty(len(order))
    ranks[order] = (mean_place + 0.5) / sizes[owner]
    return ranks


def centred(table: Floats, cell: Index) -> Floats:
    """`table` [answers, columns] without the mean of each cell."""
    num = np.bincount(cell)
    means = np.zeros((len(num), table.shape[1]))
    np.add.at(means, cell, table)
    return table - (means / num[:, None])[cell]


def sums_by_problem(table: Floats, problem: Index) -> Floats:
    """Sums [problems, columns] of `table` [answers, columns]."""
    sums = np.zeros((int(problem.max(initial=-1)) + 1, table.shape[1]))
    np.add.at(sums, problem, table)
    return sums


def gram_by_problem(table: Floats, problem: Index) -> Floats:
    """Sums of products of all columns of `table` [answers, d], as [problems, d * d]."""
    order = np.argsort(problem, kind="stable")
    parts = np.split(table[order], np.cumsum(np.bincount(problem))[:-1])
    return np.stack([(part.T @ part).ravel() for part in parts])


def explained_share(gram: Floats, columns: list[int]) -> Floats:
    """Share of column 0 that `columns` explain together, of Gram matrices [rows, d, d]; [rows]."""
    inner = gram[:, columns][:, :, columns]
    cross = gram[:, columns, 0]
    # Columns that never vary have no direction; pinv leaves them out.
    explained = np.einsum(
        "ri,rij,rj->r", cross, np.linalg.pinv(inner, rcond=1e-8, hermitian=True), cross
    )
    return np.clip(ratio(explained, gram[:, 0, 0]), 0, 1)


def correlation(both: Floats, left: Floats, right: Floats) -> Floats:
    """0 where one of the two does not vary."""
    size = np.sqrt(np.maximum(left, 0) * np.maximum(right, 0))
    return np.clip(ratio(both, size), -1, 1)


def ratio(top: Floats, bottom: Floats, empty: float = 0.0) -> Floats:
    """top / bottom, and `empty` where there is next to nothing below."""
    return np.divide(top, bottom, out=np.full(top.shape, empty), where=bottom > TINY)
