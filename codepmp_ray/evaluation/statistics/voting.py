"""The majority vote among k, exactly.

In a subset of k, group j is a winner with m votes when it has m members there and no other group
has more; with t other groups at m it counts 1 / (t + 1). The number of such subsets is the
coefficient of x^k in the integral over y from 0 to 1 of

    C(g_j, m) x^m * product over i != j of (sum_{c<m} C(g_i, c) x^c + y C(g_i, m) x^m)

since y^t integrates to 1 / (t + 1). The integrand is a polynomial in y, so Gauss-Legendre
quadrature with enough nodes is exact; all terms are positive, so nothing cancels.

Votes may weigh by a score: the group with the largest sum of weights among k wins. No closed form
is known for k below the pool's size, so subsets are drawn; the error of that is returned. At k = N
there is one subset, and no error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics.picks import check_ks, checked
from codepmp_ray.resampling import Floats

# Products of polynomials for one pool; beyond that it is sampled (pools of 256 need far fewer).
MAX_PRODUCTS = 20_000
# C(1000, 500) is near the largest float.
_MAX_CANDIDATES = 1_000
# Of the groups' sums: equal weights added in another order differ in their last digits.
_TIE = 1e-9


def vote_weights(scores: npt.ArrayLike) -> Floats:
    """Raw rewards as weights between 0 and 1: sigmoid(score), monotone in the score.

    With the logistic loss of reward models, it is the chance to be preferred to a zero reward.
    """
    return 0.5 * (1.0 + np.tanh(np.asarray(scores, float) / 2))


def weighted_majority(
    groups: npt.ArrayLike,
    weights: npt.ArrayLike,
    passed: npt.ArrayLike,
    ks: Sequence[int],
    num_draws: int = 64,
    seed: int = 0,
    present: npt.ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """The answer with the largest sum of weights among k; equal sums share.

    Args:
        weights: [problems, candidates], finite and not negative; see `vote_weights`.

    Returns:
        accuracies [problems, ks]; Monte Carlo standard error of their mean over problems [ks].
    """
    labels, correct, mask = checked(groups, passed, present)
    weight = np.asarray(weights, float)
    if weight.shape != labels.shape:
        raise InputError(f"weights is {weight.shape}, and the pools are {labels.shape}.")
    if not (np.isfinite(weight[mask]) & (weight[mask] >= 0)).all():
        raise InputError(
            "Weights of votes must be finite and not negative.", "Use vote_weights(scores)."
        )
    check_ks(ks, labels.shape[1])
    means = np.zeros((len(labels), len(ks)))
    variances = np.zeros_like(means)
    generator = np.random.default_rng(seed)
    for row, members, group in _filled(labels, mask):
        cut = [min(k, len(group)) for k in ks]
        means[row], variances[row] = sampled_vote(
            group, weight[row][members], correct[row][members], cut, num_draws, generator
        )
    return means, np.sqrt(variances.sum(axis=0)) / len(labels)


def _filled(
    labels: npt.NDArray[Any], mask: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, npt.NDArray[np.bool_], npt.NDArray[np.intp]]]:
    """(row, which of its columns are candidates, their groups from 0) of pools that have any."""
    for row, members in enumerate(mask):
        if members.any():
            yield row, members, np.unique(labels[row][members], return_inverse=True)[1]


def sampled_vote(
    group: npt.NDArray[np.intp],
    weights: Floats,
    correct: Floats,
    ks: Sequence[int],
    num_draws: int,
    generator: np.random.Generator,
) -> tuple[Floats, Floats]:
    """(accuracy [ks], variance of its Monte Carlo error [ks]) of one pool.

    A subset of k is the beginning of a random order, so that the ks share their draws.
    """
    num, num_groups = len(group), int(group.max()) + 1
    draws = np.argsort(generator.random((num_draws, num), dtype=np.float32), axis=1)
    base = np.arange(num_draws)[:, None] * num_groups

    def counted(part: npt.NDArray[np.intp], of: Floats | None) -> Floats:
        flat = (group[part] + base).ravel()
        found = np.bincount(flat, None if of is None else of[part].ravel(), base.size * num_groups)
        return found.reshape(num_draws, num_groups).astype(float)

    sums, counts, rights = (np.zeros((num_draws, num_groups)) for _ in range(3))
    shares = np.bincount(group, correct) / np.bincount(group)
    # Where a group's members are all right or all wrong, and every vote weighs, sums are enough.
    is_simple = bool(np.isin(shares, (0, 1)).all() and (weights > 0).all())
    means, variances = np.empty(len(ks)), np.zeros(len(ks))
    done = 0
    for column in np.argsort(ks):
        k = ks[column]
        if k > done:
            new = draws[:, done:k]
            sums += counted(new, weights)
            if not is_simple:
                counts += counted(new, None)
                rights += counted(new, correct)
            done = k
        is_top = sums >= sums.max(axis=1, keepdims=True) * (1 - _TIE)
        if is_simple:
            right = is_top @ shares
        else:
            is_top &= counts > 0
            right = (is_top * (rights / np.maximum(counts, 1))).sum(axis=1)
        values = right / is_top.sum(axis=1)
        if k == 1:  # one vote wins, whatever it weighs
            means[column] = correct.mean()
            continue
        means[column] = values.mean()
        if k < num:
            variances[column] = values.var() / num_draws
    return means, variances


def majority(
    groups: npt.ArrayLike,
    passed: npt.ArrayLike,
    ks: Sequence[int],
    num_draws: int = 1_000,
    seed: int = 0,
    present: npt.ArrayLike | None = None,
    max_products: int = MAX_PRODUCTS,
) -> tuple[Floats, Floats]:
    """The answer given most often among k; candidates with equal `groups` gave the same answer.

    Equal counts share. A group whose members differ in outcome (equal code may: time limits) counts
    as the mean of its members. Exact, but for pools whose sum would be long: those are sampled with
    `num_draws` subsets each.

    Returns:
        accuracies [problems, ks]; Monte Carlo standard error of their mean over problems [ks], 0
        where all pools are exact.
    """
    labels, correct, mask = checked(groups, passed, present)
    check_ks(ks, labels.shape[1])
    means = np.zeros((len(labels), len(ks)))
    variances = np.zeros_like(means)
    generator = np.random.default_rng(seed)
    for row, members, group in _filled(labels, mask):
        num, sizes = len(group), np.bincount(group)
        shares = np.bincount(group, weights=correct[row][members]) / sizes
        cut = [min(k, num) for k in ks]
        if num <= _MAX_CANDIDATES and _num_products(sizes, shares) <= max_products:
            means[row] = _exact(sizes, shares, cut)
        else:
            means[row], variances[row] = sampled_vote(
                group, np.ones(num), correct[row][members], cut, num_draws, generator
            )
    return means, np.sqrt(variances.sum(axis=0)) / len(labels)


def _num_products(sizes: npt.NDArray[np.intp], shares: Floats) -> int:
    """Upper bound of the products of polynomials that `_exact` makes."""
    kinds = len({*sizes[shares > 0].tolist()})
    return kinds * len(np.unique(sizes)) * _second_largest(sizes)


def _second_largest(sizes: npt.NDArray[np.intp]) -> int:
    return int(np.sort(sizes)[-2]) if len(sizes) > 1 else 0


def _exact(sizes: npt.NDArray[np.intp], shares: Floats, ks: Sequence[int]) -> Floats:
    """Accuracy [ks] from the groups' sizes and the share of right members in each."""
    num, top = int(sizes.sum()), max(ks)
    won = np.zeros(top + 1)
    kinds, counts = np.unique(sizes, return_counts=True)
    for kind in kinds:
        weight = float(shares[sizes == kind].sum())  # groups of one size win equally often
        if weight > 0:
            others = counts - (kinds == kind)
            won += weight * _wins(int(kind), kinds[others > 0], others[others > 0], num, top)
    return np.array([won[k] / math.comb(num, k) for k in ks])


def _wins(
    size: int,
    kinds: npt.NDArray[np.intp],
    counts: npt.NDArray[np.intp],
    num: int,
    top: int,
) -> Floats:
    """Subsets [0..top] that a group of `size` wins, ties as their share, against the others."""
    result = np.zeros(top + 1)
    largest = int(kinds.max()) if len(kinds) else 0
    own = _binomials(size)
    for m in range(1, min(size, largest, top) + 1):
        nodes, weights = _quadrature(int(counts[kinds >= m].sum()))
        free = int((kinds[kinds < m] * counts[kinds < m]).sum())
        total = np.zeros(1)
        for y, weight in zip(nodes, weights, strict=True):
            product = _binomials(free)[: top - m + 1]
            for kind, count in zip(kinds[kinds >= m], counts[kinds >= m], strict=True):
                factor = _binomials(int(kind))[: m + 1].copy()
                factor[m] *= y
                product = np.convolve(product, _power(factor, int(count), top - m + 1))
                product = product[: top - m + 1]
            total = _add(total, weight * product)
        result[m : m + len(total)] += own[m] * total
    # More votes than any other group can have: the rest of the subset is free.
    rest = _binomials(num - size)
    for m in range(largest + 1, min(size, top) + 1):
        part = rest[: top - m + 1]
        result[m : m + len(part)] += own[m] * part
    return result


def _power(factor: Floats, exponent: int, length: int) -> Floats:
    """factor^exponent, its first `length` coefficients."""
    result, base = np.ones(1), factor[:length]
    if exponent == 1:  # most groups have a size of their own
        return base
    while exponent:
        if exponent & 1:
            result = np.convolve(result, base)[:length].astype(float, copy=False)
        exponent >>= 1
        if exponent:
            base = np.convolve(base, base)[:length]
    return result


def _add(left: Floats, right: Floats) -> Floats:
    if len(left) < len(right):
        left, right = right, left
    total = left.copy()
    total[: len(right)] += right
    return total


@lru_cache(maxsize=2048)
def _binomials(num: int) -> Floats:
    """C(num, 0..num) as floats. Not to be written to."""
    row = np.array([float(math.comb(num, k)) for k in range(num + 1)])
    row.flags.writeable = False
    return row


@lru_cache(maxsize=1024)
def _quadrature(degree: int) -> tuple[Floats, Floats]:
    """Nodes and weights on [0, 1], exact for polynomials of `degree`."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (nodes + 1) / 2, weights / 2
