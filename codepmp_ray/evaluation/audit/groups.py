"""How much higher one group's answers score than other equally right answers to the same problem.

A group is whatever an answer belongs to: who wrote it, its script, the language of its code. The
difference is in ranks: 0.1 is a tenth of the problem's answers further up. Problems count by how
much the group and the others can be compared there. Where no cell (equally right answers of one
problem) holds both the group and others, nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.audit.within import (
    TINY,
    Index,
    cells,
    centred,
    checked_answers,
    numbered,
    ranks_within,
    ratio,
    sums_by_problem,
)
from codepmp_ray.resampling import Floats, Interval, resampled, share_limits

MAX_GROUPS = 64
OTHERS = "(others)"


@dataclass(frozen=True)
class GroupEffect:
    """`difference` is in ranks, None where the group is never beside another; `share_right` is of
    its answers."""

    num_answers: int
    share_right: float
    difference: Interval | None


@dataclass(frozen=True)
class Cells:
    """Answers without what their problem and their correctness explain.

    Attributes:
        names: of the groups [groups]; those with the fewest answers are one beyond MAX_GROUPS.
        group: number of each answer's group [answers].
        problem: number of each answer's problem [answers].
        rank: the score's rank in its problem, without the cell's mean [answers].
        is_in: membership, without the cell's mean [answers, groups].
        correct: [answers].
    """

    names: list[str]
    group: Index
    problem: Index
    rank: Floats
    is_in: Floats
    correct: Floats

    @classmethod
    def of(
        cls,
        scores: npt.ArrayLike,
        correct: npt.ArrayLike,
        groups: Sequence[str],
        problems: Sequence[str],
    ) -> Cells:
        """From one entry per answer. Raises InputError as `checked_answers`."""
        score, right = checked_answers(scores, correct, problems)
        names, group = _names(groups)
        problem = numbered(problems)
        cell = cells(problem, right)
        ranks = ranks_within(score, problem)
        members = (group[:, None] == np.arange(len(names))).astype(float)
        rank = centred(ranks[:, None], cell)[:, 0]
        return cls(names, group, problem, rank, centred(members, cell), right)

    @property
    def num_cells_rank(self) -> int:
        """Answers beyond the first of each cell: what is free to vary."""
        return len(self.rank) - int(cells(self.problem, self.correct).max(initial=-1)) - 1

    def effect_sums(self) -> Floats:
        """[problems, 2 * groups]: products of rank and membership, and squares of membership."""
        products = np.concatenate([self.rank[:, None] * self.is_in, self.is_in**2], axis=1)
        return sums_by_problem(products, self.problem)


def differences_of(sums: Floats) -> Floats:
    """Differences [rows, groups] from `Cells.effect_sums`, NaN where there are none."""
    products, squares = np.split(sums, 2, axis=1)
    return ratio(products, squares, empty=np.nan)


def group_effects(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    groups: Sequence[str],
    problems: Sequence[str],
    confidence: float = 0.95,
    num_bootstrap: int = 1_000,
    seed: int = 0,
) -> dict[str, GroupEffect]:
    """By group, those with most answers first. Intervals are over problems."""
    if not len(groups):
        return {}
    found = Cells.of(scores, correct, groups, problems)
    sums = found.effect_sums()
    draws = resampled(sums, num_bootstrap, differences_of, seed)
    return effects_from(found, differences_of(sums.sum(axis=0, keepdims=True))[0], draws,
                        confidence)  # fmt: skip


def effects_from(
    found: Cells, point: Floats, draws: Floats, confidence: float
) -> dict[str, GroupEffect]:
    """Of differences [groups] and their resamples [resamples, groups].

    Ranks differ by -1 to 1: that is the interval of a group that only one problem compares with
    others, and where no resample moves a difference it is widened by `unseen_share`.
    """
    known = ~np.isnan(point)
    low, high = np.full(len(point), np.nan), np.full(len(point), np.nan)
    num_problems = (found.effect_sums()[:, len(point) :] > TINY).sum(axis=0)[known]
    if known.any():
        # Halved and shifted they are shares.
        limits = share_limits((draws[:, known] + 1) / 2, confidence, num_problems)
        low[known], high[known] = (2 * end - 1 for end in limits)
    num = np.bincount(found.group, minlength=len(point))
    num_right = np.bincount(found.group, found.correct, minlength=len(point))
    return {
        name: GroupEffect(
            int(num[i]),
            float(num_right[i] / num[i]),
            Interval(float(point[i]), float(low[i]), float(high[i])) if known[i] else None,
        )
        for i, name in enumerate(found.names)
    }


def _names(groups: Sequence[str]) -> tuple[list[str], Index]:
    names, number, counts = np.unique(
        np.asarray(groups).astype(str), return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    found = [str(names[i]) for i in order]
    if len(found) > MAX_GROUPS:
        found = [*found[: MAX_GROUPS - 1], OTHERS]
    return found, np.minimum(place[number], len(found) - 1)
