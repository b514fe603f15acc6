"""Right over wrong, by who wrote the two answers.

A score that knows generators, not answers, does well where the right answer comes from the better
one, and no better than a coin among answers of one generator. Shares are means over the problems
that have such pairs of a right and a wrong answer; equal scores are half a success.

- same: both answers are of one generator;
- across: of two;
- with_prior / against_prior: of two, and the right one is of the generator that is right more /
  less often on all other problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.audit.within import checked_answers, numbered
from codepmp_ray.evaluation.statistics import (
    Difference,
    bootstrap_intervals,
    model_prior_scores,
    padded,
    paired_difference,
)
from codepmp_ray.resampling import Floats, Interval

KINDS = ("same", "across", "with_prior", "against_prior")


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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
