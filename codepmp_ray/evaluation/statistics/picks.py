"""The pick among k candidates: by a score, by luck, by an oracle, by who wrote it.

The expectation over all subsets of k is exact. With scores sorted, a group of equal scores that
ends at rank c and begins after rank b holds the maximum of a subset with probability
(C(c, k) - C(b, k)) / C(N, k), and each of its members is then equally likely.

A pool is a row of [problems, candidates] arrays. Where problems have unequally many candidates, the
rows are filled up and a mask `present` of the same shape says which entries are candidates. A
problem with fewer than k candidates is judged by all it has, one without any is not solved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.resampling import Floats

NanScores = Literal["refuse", "last"]
Bools = npt.NDArray[np.bool_]


def default_ks(num_candidates: int) -> list[int]:
    """1, 2, 4, ... and the pool size itself."""
    powers = [1 << i for i in range(num_candidates.bit_length()) if 1 << i <= num_candidates]
    return sorted({*powers, num_candidates})


def padded(rows: Sequence[Sequence[float]], fill: float = 0.0) -> tuple[Floats, Bools]:
    """(values, present), both [problems, longest row], of rows of unequal length.

    Raises InputError when there is no row, or no row holds anything.
    """
    width = max(map(len, rows), default=0)
    if not width:
        raise InputError(f"None of {len(rows)} problems has a candidate.")
    values = np.full((len(rows), width), fill)
    present = np.zeros((len(rows), width), dtype=bool)
    for number, row in enumerate(rows):
        values[number, : len(row)] = row
        present[number, : len(row)] = True
    return values, present


def checked(
    values: npt.ArrayLike,
    passed: npt.ArrayLike,
    present: npt.ArrayLike | None = None,
    nan_values: NanScores = "last",
) -> tuple[Floats, Floats, Bools]:
    """All three as arrays of one shape.

    Raises InputError for other shapes, unknown outcomes and values that are refused.
    """
    left, right = np.asarray(values, float), np.asarray(passed, float)
    if left.ndim != 2 or left.shape != right.shape or 0 in left.shape:
        raise InputError(
            f"Pools must be [problems, candidates] arrays of one shape, not {left.shape} and "
            f"{right.shape}.",
        )
    mask = np.ones(left.shape, bool) if present is None else np.asarray(present, bool)
    if mask.shape != left.shape:
        raise InputError(f"present is {mask.shape}, and the pools are {left.shape}.")
    bad = mask & ~((right >= 0) & (right <= 1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"Candidate {column} of problem {row} passed {right[row, column]:g}, which is not "
            "between 0 and 1.",
            "Grade all candidates first, or leave the ungraded ones out with `present`.",
        )
    bad = np.isnan(left) & mask
    if nan_values == "refuse" and bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"The score of candidate {column} of problem {row} is not a number.",
            'Score it again, or rank such candidates below all others with nan_scores="last".',
        )
    return left, right, mask


def check_ks(ks: Sequence[int], num_candidates: int) -> None:
    """Raises InputError for a k that no subset can have."""
    if wrong := [k for k in ks if not 1 <= k <= num_candidates]:
        raise InputError(f"k={wrong[0]} is outside 1..{num_candidates}, the size of the pools.")


def over_sizes(
    compute: Callable[[Sequence[int], list[Floats]], Floats],
    ks: Sequence[int],
    present: Bools,
    arrays: Sequence[Floats],
) -> Floats:
    """`compute(ks, arrays)` [problems, ks] on problems of one size at a time, k cut to the size."""
    check_ks(ks, present.shape[1])
    result = np.zeros((len(present), len(ks)))
    sizes = present.sum(axis=1)
    for size in np.unique(sizes[sizes > 0]):
        rows = np.flatnonzero(sizes == size)
        mask = present[rows]
        parts = [array[rows][mask].reshape(len(rows), size) for array in arrays]
        result[rows] = compute([min(k, int(size)) for k in ks], parts)
    return result


def subset_ratio(num_candidates: int, ks: Sequence[int]) -> Floats:
    """C(c, k) / C(N, k) for each k (rows) and c = 0..N (columns), without large numbers."""
    counts = np.arange(num_candidates + 1, dtype=float)
    rows = np.ones((num_candidates + 1, num_candidates + 1))
    for k in range(1, num_candidates + 1):
        rows[k] = rows[k - 1] * np.maximum(counts - k + 1, 0) / (num_candidates - k + 1)
    return rows[list(ks)]


def best_of_k(
    scores: npt.ArrayLike,
    passed: npt.ArrayLike,
    ks: Sequence[int],
    present: npt.ArrayLike | None = None,
    nan_scores: NanScores = "refuse",
) -> Floats:
    """Accuracy [problems, ks] of the highest score among k.

    A score that is not a number is refused, or, with nan_scores="last", below every number and
    equal to others of its kind: chosen only where there is nothing else.

    Raises InputError for NaN scores or shapes that do not fit.
    """
    values, correct, mask = checked(scores, passed, present, nan_scores)
    return over_sizes(_best_of, ks, mask, [values, correct])


def one_draw_sd(expected: Floats) -> Floats:
    """Standard deviation [ks] of the accuracy by one random draw of k candidates, as the paper's
    scripts take for each k, from `best_of_k` [problems, ks].

    A draw's pick for problem i is right with the exact expectation p_i, independently of other
    problems; it comes on top of what other problems would have given.
    """
    chance = np.clip(expected, 0.0, 1.0)
    return np.sqrt((chance * (1 - chance)).sum(axis=0)) / len(chance)


def expected_best_score(
    scores: npt.ArrayLike, ks: Sequence[int], present: npt.ArrayLike | None = None
) -> Floats:
    """The highest score among k, as its mean over subsets [problems, ks]."""
    values, _, mask = checked(scores, np.zeros_like(np.asarray(scores, float)), present)
    if not np.isfinite(values[mask]).all():
        raise InputError("A mean of scores needs finite scores, and some are not.")

    def best(ks: Sequence[int], arrays: list[Floats]) -> Floats:
        ordered = np.sort(arrays[0], axis=1)
        return ordered @ max_rank_probability(ordered.shape[1], ks).T

    found = over_sizes(best, ks, mask, [values])
    found[~mask.any(axis=1)] = np.nan
    return found


def oracle(
    passed: npt.ArrayLike, ks: Sequence[int], present: npt.ArrayLike | None = None
) -> Floats:
    """Chance that any of k is right: unbiased pass@k (Chen et al. 2021), 1 - C(N-c, k)/C(N, k)."""
    _, correct, mask = checked(passed, passed, present)

    def any_right(ks: Sequence[int], arrays: list[Floats]) -> Floats:
        (right,) = arrays
        num_wrong = right.shape[1] - right.sum(axis=1).astype(int)
        return 1.0 - subset_ratio(right.shape[1], ks)[:, num_wrong].T

    return over_sizes(any_right, ks, mask, [correct])


def random_choice(
    passed: npt.ArrayLike, ks: Sequence[int], present: npt.ArrayLike | None = None
) -> Floats:
    """One of k at random: the pool's mean, whatever k is."""
    _, correct, mask = checked(passed, passed, present)
    num = mask.sum(axis=1)
    means = np.where(mask, correct, 0.0).sum(axis=1) / np.maximum(num, 1)
    return np.repeat(means[:, None], len(ks), axis=1)


def model_prior_scores(
    models: npt.ArrayLike, passed: npt.ArrayLike, present: npt.ArrayLike | None = None
) -> Floats:
    """Score of a candidate [problems, candidates]: its generator's accuracy on all other problems.

    `models` [problems, candidates] names the generators. In a pool of several, style gives the
    generator away, so a score that knows nothing else can look like a good one. A generator that
    wrote for this problem only gets the mean of all.
    """
    names = np.asarray(models)
    _, correct, mask = checked(passed, passed, present)
    if names.shape != correct.shape:
        raise InputError(f"models is {names.shape}, and the pools are {correct.shape}.")
    _, index = np.unique(names, return_inverse=True)
    index = index.reshape(names.shape)
    num_models = int(index.max()) + 1
    row = np.arange(len(index))[:, None]
    counts = np.zeros((len(index), num_models))
    rights = np.zeros_like(counts)
    np.add.at(counts, (np.broadcast_to(row, index.shape), index), mask.astype(float))
    np.add.at(rights, (np.broadcast_to(row, index.shape), index), np.where(mask, correct, 0.0))
    other_counts, other_rights = counts.sum(axis=0) - counts, rights.sum(axis=0) - rights
    mean = float(correct[mask].mean()) if mask.any() else 0.0
    prior = np.divide(
        other_rights, other_counts, out=np.full_like(counts, mean), where=other_counts > 0
    )
    return prior[row, index]


def _best_of(ks: Sequence[int], arrays: list[Floats]) -> Floats:
    values, correct = arrays
    is_nan = np.isnan(values)
    order = np.lexsort((np.where(is_nan, -np.inf, values), ~is_nan), axis=1)
    values = np.take_along_axis(values, order, axis=1)
    correct = np.take_along_axis(correct, order, axis=1)
    new_group = ~((values[:, 1:] == values[:, :-1]) | (np.isnan(values[:, 1:])))
    return mean_over_ties(new_group, correct) @ max_rank_probability(values.shape[1], ks).T


def max_rank_probability(num_candidates: int, ks: Sequence[int]) -> Floats:
    """Chance [ks, N] that the candidate at each rank, worst first, is the best of k."""
    return np.diff(subset_ratio(num_candidates, ks), axis=1)


def mean_over_ties(new_group: Bools, correct: Floats) -> Floats:
    """`correct` with each entry replaced by the mean of its tie group."""
    starts = np.ones_like(correct, dtype=bool)
    starts[:, 1:] = new_group
    group = np.cumsum(starts.ravel()) - 1  # a new row always starts a new group
    sums = np.bincount(group, weights=correct.ravel())
    return (sums / np.bincount(group))[group].reshape(correct.shape)
