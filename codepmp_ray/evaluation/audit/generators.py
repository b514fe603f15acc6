"""How much of a score follows who wrote the answer, beyond whether it is right.

- The share of variance that the generator explains among equally right answers of one problem
  (partial R2), beside the share of a problem's variance that correctness explains. Names without
  any meaning explain some, too: `by_chance`.
- Each generator's difference from other equally right answers.
- The rank correlation of that difference with the generator's share of right answers: above zero
  the score prefers those who are right more often even where they are no more right.

Ranks within problems throughout; intervals come from resampling problems.

Choices between a right and a wrong answer are told apart by who wrote the two. A score that knows
generators, not answers, does well where the right answer comes from the better one, and no better
than a coin among answers of one generator. Shares are means over the problems that have such pairs;
equal scores are half a success.

- same: both answers are of one generator;
- across: of two;
- with_prior / against_prior: of two, and the right one is of the generator that is right more /
  less often on all other problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.audit.groups import Cells, GroupEffect, differences_of, effects_from
from codepmp_ray.evaluation.audit.within import (
    Index,
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
from codepmp_ray.evaluation.statistics import (
    Difference,
    bootstrap_intervals,
    model_prior_scores,
    padded,
    paired_difference,
)
from codepmp_ray.resampling import Floats, Interval, intervals, percentiles, resampled

_MIN_FOR_CORRELATION = 3  # of two the rank correlation is 1 or -1, whatever they do
_MAX_RESAMPLES = 2_000  # each inverts a matrix of all generators
_STEP = 128
KINDS = ("same", "across", "with_prior", "against_prior")


@dataclass(frozen=True)
class GeneratorStyle:
    """Attributes:
    correctness_r2: share of the rank's variance within problems that correctness explains.
    generator_r2: share of what varies among equally right answers that the generator explains.
    by_chance: of generator_r2, for names that mean nothing.
    prior_correlation: of differences with shares of right answers; None below three generators.
    effects: by generator.
    """

    correctness_r2: Interval
    generator_r2: Interval
    by_chance: float
    prior_correlation: Interval | None
    effects: dict[str, GroupEffect]
    num_problems: int
    num_answers: int


def generator_style(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    generators: Sequence[str],
    problems: Sequence[str],
    confidence: float = 0.95,
    num_bootstrap: int = 1_000,
    seed: int = 0,
) -> GeneratorStyle | None:
    """From one entry per answer [answers]; None where no two generators wrote equally right
    answers to one problem.

    Raises InputError for scores that are no finite numbers and lists of unequal length.
    """
    if not len(generators):
        return None
    found = Cells.of(scores, correct, generators, problems)
    num = len(found.names)
    if num < 2 or not (found.is_in**2).sum() > 0.5:
        return None
    figures = _Figures(num)
    sums = _sums(found, np.asarray(scores, float))
    point = figures(sums.sum(axis=0, keepdims=True))[0]
    draws = resampled(sums, min(num_bootstrap, _MAX_RESAMPLES), figures, seed)
    # A resample has fewer different problems, so chance explains more in it than in the whole.
    draws[:, 0] = np.clip(draws[:, 0] - draws[:, 0].mean() + point[0], 0, 1)
    of_generator, of_correctness = intervals(point[:2], *percentiles(draws[:, :2], confidence))
    prior = None
    if (~np.isnan(point[3:])).sum() >= _MIN_FOR_CORRELATION:
        (prior,) = intervals(point[2:3], *percentiles(draws[:, 2:3], confidence))
    contrasts = np.linalg.matrix_rank(found.is_in.T @ found.is_in)
    return GeneratorStyle(
        correctness_r2=of_correctness,
        generator_r2=of_generator,
        by_chance=min(1.0, int(contrasts) / max(found.num_cells_rank, 1)),
        prior_correlation=prior,
        effects=effects_from(found, point[3:], draws[:, 3:], confidence),
        num_problems=len(sums),
        num_answers=len(found.rank),
    )


def _sums(found: Cells, scores: Floats) -> Floats:
    """By problem: Gram matrix of (rank, generators) in cells, of (rank, correct) in problems, and
    answers and right answers of each generator."""
    in_cells = gram_by_problem(
        np.concatenate([found.rank[:, None], found.is_in], axis=1), found.problem
    )
    ranks = ranks_within(scores, found.problem)
    in_problems = centred(np.stack([ranks, found.correct], axis=1), found.problem)
    members = (found.group[:, None] == np.arange(len(found.names))).astype(float)
    counts = np.concatenate([members, members * found.correct[:, None]], axis=1)
    return np.concatenate(
        [
            in_cells,
            gram_by_problem(in_problems, found.problem),
            sums_by_problem(counts, found.problem),
        ],
        axis=1,
    )


@dataclass(frozen=True)
class _Figures:
    """(generator R2, correctness R2, prior correlation, differences) [rows, 3 + generators] of
    `_sums`, in this order."""

    num: int

    def __call__(self, sums: Floats) -> Floats:
        # In steps: the matrices of all resamples at once would fill the memory.
        return np.concatenate([self._of(sums[i : i + _STEP]) for i in range(0, len(sums), _STEP)])

    def _of(self, sums: Floats) -> Floats:
        width = 1 + self.num
        end = width * width
        gram = sums[:, :end].reshape(len(sums), width, width)
        right = sums[:, end : end + 4].reshape(len(sums), 2, 2)
        counts, rights = np.split(sums[:, end + 4 :], 2, axis=1)
        squares = np.diagonal(gram, axis1=1, axis2=2)[:, 1:]
        effects = differences_of(np.concatenate([gram[:, 0, 1:], squares], axis=1))
        explained = explained_share(gram, list(range(1, width)))
        correctness = correlation(right[:, 0, 1], right[:, 0, 0], right[:, 1, 1]) ** 2
        prior = rank_correlations(effects, ratio(rights, counts, empty=np.nan))
        return np.concatenate([np.stack([explained, correctness, prior], axis=1), effects], axis=1)


def rank_correlations(left: Floats, right: Floats) -> Floats:
    """Spearman's, of each row's columns that both sides have [rows]; NaN for fewer than two."""
    known = ~(np.isnan(left) | np.isnan(right))
    _, row = np.unique(np.nonzero(known)[0], return_inverse=True)
    has_two = known.sum(axis=1) >= 2
    found = np.full(len(left), np.nan)
    if not len(row):
        return found
    columns = np.stack([_ranked(values[known], row) for values in (left, right)], axis=1)
    gram = gram_by_problem(centred(columns, row), row).reshape(-1, 2, 2)
    of_rows = correlation(gram[:, 0, 1], gram[:, 0, 0], gram[:, 1, 1])
    found[known.any(axis=1)] = of_rows
    found[~has_two] = np.nan
    return found


def _ranked(values: Floats, row: Index) -> Floats:
    # Rounding must not order what is equal.
    return ranks_within(np.round(values, 12), row)


@dataclass(frozen=True)
class ChoiceShare:
    accuracy: Interval
    num_problems: int
    num_pairs: int


@dataclass(frozen=True)
class Choices:
    """Shares by kind, None where no problem has such pairs; `same_gap` is across - same on the
    problems that have both, None below two of them."""

    shares: dict[str, ChoiceShare | None]
    same_gap: Difference | None


def choices(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    generators: Sequence[str],
    problems: Sequence[str],
    confidence: float = 0.95,
    num_bootstrap: int = 1_000,
    seed: int = 0,
) -> Choices:
    """From one entry per answer [answers]. Raises InputError as `checked_answers`."""
    score, right = checked_answers(scores, correct, problems)
    problem, model = numbered(problems), numbered(generators)
    rows = [np.flatnonzero(problem == i) for i in range(int(problem.max(initial=-1)) + 1)]
    wins = np.full((len(rows), len(KINDS)), np.nan)
    counts = np.zeros((len(rows), len(KINDS)), int)
    priors = _priors(rows, right, model)
    for number, row in enumerate(rows):
        good, bad = row[right[row] == 1], row[right[row] == 0]
        if not (len(good) and len(bad)):
            continue
        won = np.where(score[good][:, None] == score[bad], 0.5, score[good][:, None] > score[bad])
        is_same = model[good][:, None] == model[bad]
        lead = np.where(is_same, 0.0, priors[good][:, None] - priors[bad])
        for kind, mask in enumerate((is_same, ~is_same, lead > 0, lead < 0)):
            counts[number, kind] = mask.sum()
            if counts[number, kind]:
                wins[number, kind] = won[mask].mean()
    draws = (confidence, num_bootstrap, seed)
    shares = {
        name: _share(wins[:, kind], counts[:, kind], draws) for kind, name in enumerate(KINDS)
    }
    both = ~np.isnan(wins[:, :2]).any(axis=1)
    gap = None
    if both.sum() >= 2:
        gap = paired_difference(wins[both, 1], wins[both, 0], *draws)
    return Choices(shares, gap)


def _share(
    wins: Floats, counts: npt.NDArray[np.int_], draws: tuple[float, int, int]
) -> ChoiceShare | None:
    known = ~np.isnan(wins)
    if not known.any():
        return None
    (accuracy,) = bootstrap_intervals(wins[known][:, None], *draws)
    return ChoiceShare(accuracy, int(known.sum()), int(counts.sum()))


def _priors(rows: list[npt.NDArray[np.intp]], right: Floats, model: npt.NDArray[np.intp]) -> Floats:
    """Each answer's generator's share of right answers on all other problems [answers]."""
    found = np.zeros(len(right))
    if not rows:
        return found
    models, present = padded([model[row].tolist() for row in rows])
    passed, _ = padded([right[row].tolist() for row in rows])
    prior = model_prior_scores(models.astype(int), passed, present)
    for number, row in enumerate(rows):
        found[row] = prior[number, : len(row)]
    return found
