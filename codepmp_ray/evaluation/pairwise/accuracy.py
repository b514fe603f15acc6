"""Pairwise accuracy with intervals over prompts, for a whole set, by section, and weighted.

Paper, Table 1 (accuracy of reward models on held-out pairs) and Table 13. Pairs of one prompt are
not independent, so prompts are resampled, not pairs. Equal rewards are half right here; RewardBench
and RM-Bench count them as wrong.

Beyond the order of rewards: what they are worth as chances (AUC, log-loss, calibration error).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata

from codepmp_ray.errors import InputError
from codepmp_ray.resampling import (
    Floats,
    Interval,
    cluster_sums,
    intervals,
    percentiles,
    resample_counts,
    resampled,
    share_limits,
)
from codepmp_ray.scoring.calibration import expected_error, log_losses

# From column sums [resamples, columns] to figures [resamples, any].
Figures = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Bootstrap:
    confidence: float = 0.95
    num_bootstrap: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class PairAccuracy(Interval):
    """Of `num_pairs` pairs with `num_prompts` different prompts; `num_ties` had equal rewards."""

    num_pairs: int
    num_prompts: int
    num_ties: int


@dataclass(frozen=True)
class Outcomes:
    """One entry per pair.

    Attributes:
        right: 1, 0, or what a tie counts.
        prompts: equal for pairs that are not independent of each other.
    """

    right: Floats
    is_tie: npt.NDArray[np.bool_]
    prompts: npt.NDArray[np.str_]

    @classmethod
    def of(
        cls,
        chosen: npt.ArrayLike,
        rejected: npt.ArrayLike,
        prompts: Sequence[str] | npt.NDArray[np.str_] | None = None,
        tie: npt.ArrayLike = 0.5,
    ) -> Outcomes:
        """From the rewards of both sides [pairs]; without `prompts` every pair has its own.

        `tie` is what equal rewards count, of all pairs or of each.

        Raises InputError for no pairs, lists of unequal length and rewards that are no numbers.
        """
        left, right = np.asarray(chosen, float), np.asarray(rejected, float)
        names = np.arange(len(left)) if prompts is None else np.asarray(prompts)
        if left.ndim != 1 or not len(left) or not left.shape == right.shape == names.shape:
            raise InputError(
                f"Accuracy needs one reward of each side and one prompt for each pair, not lists "
                f"of {left.shape}, {right.shape} and {names.shape}."
            )
        if (bad := np.isnan(left) | np.isnan(right)).any():
            raise InputError(
                f"{int(bad.sum())} of {len(left)} pairs have a reward that is not a number, the "
                f"first is pair {int(bad.argmax())}.",
                "Score them again.",
            )
        is_tie = left == right
        return cls(np.where(is_tie, tie, left > right), is_tie, names.astype(str))


def pair_accuracy(outcomes: Outcomes, bootstrap: Bootstrap) -> PairAccuracy:
    """Of all pairs together."""
    return accuracy_by_section(outcomes, np.full(len(outcomes.right), "all"), bootstrap)["all"]


def accuracy_by_section(
    outcomes: Outcomes, sections: Sequence[str] | npt.NDArray[np.str_], bootstrap: Bootstrap
) -> dict[str, PairAccuracy]:
    """Accuracy of each section [pairs], in the order of first appearance."""
    names = np.asarray(sections).astype(str)
    table = SectionSums.of(outcomes, names)
    low, high = table.limits(table.ratios, table.num_prompts, bootstrap)
    found = {}
    for column, name in enumerate(table.names):
        of_section = names == name
        found[name] = PairAccuracy(
            float(table.point[column]),
            float(low[column]),
            float(high[column]),
            num_pairs=int(of_section.sum()),
            num_prompts=len(np.unique(outcomes.prompts[of_section])),
            num_ties=int(outcomes.is_tie[of_section].sum()),
        )
    return found


def weighted_accuracy(
    outcomes: Outcomes,
    subsets: Sequence[str] | npt.NDArray[np.str_],
    weights: Mapping[str, Mapping[str, float]],
    bootstrap: Bootstrap,
) -> dict[str, Interval]:
    """Weighted means of subsets' accuracies, each named one with {subset: weight}.

    A subset without pairs takes no part, as in RewardBench; a mean without any is left out.
    """
    table = SectionSums.of(outcomes, np.asarray(subsets).astype(str))
    shares: dict[str, Floats] = {}
    for name, parts in weights.items():
        weight = np.array([parts.get(subset, 0.0) for subset in table.names])
        if weight.sum() > 0:
            shares[name] = weight / weight.sum()
    if not shares:
        return {}
    matrix = np.stack(list(shares.values()), axis=1)
    # Where nothing goes wrong, a mean is as sure as the smallest of its subsets.
    num_prompts = np.where(matrix > 0, table.num_prompts[:, None], np.inf).min(axis=0)
    num_prompts = np.maximum(num_prompts, min(2, len(table.sums)))
    limits = table.limits(lambda sums: table.ratios(sums) @ matrix, num_prompts, bootstrap)
    return dict(zip(shares, intervals(table.point @ matrix, *limits), strict=True))


@dataclass(frozen=True)
class SectionSums:
    """Right pairs and pairs of each prompt in each section: [prompts, 2 x sections]."""

    names: list[str]
    sums: Floats

    @classmethod
    def of(cls, outcomes: Outcomes, sections: npt.NDArray[np.str_]) -> SectionSums:
        if len(sections) != len(outcomes.right):
            raise InputError(f"{len(sections)} sections were given for {len(outcomes.right)} pairs")
        names = list(dict.fromkeys(sections.tolist()))
        member = (sections[:, None] == np.array(names)[None, :]).astype(float)
        both = np.concatenate([member * outcomes.right[:, None], member], axis=1)
        sums, _ = cluster_sums(both, outcomes.prompts)
        return cls(names, sums)

    @property
    def point(self) -> Floats:
        return self.ratios(self.sums.sum(axis=0, keepdims=True))[0]

    def ratios(self, sums: Floats) -> Floats:
        """Accuracies [resamples, sections] of summed rows; NaN for a section that was not drawn."""
        right, num = np.split(sums, 2, axis=1)
        return np.divide(right, num, out=np.full_like(right, np.nan), where=num > 0)

    @property
    def num_prompts(self) -> Floats:
        """Prompts that each section has pairs of [sections]."""
        return (self.sums[:, len(self.names) :] > 0).sum(axis=0).astype(float)

    def limits(
        self, figures: Figures, num_prompts: Floats, bootstrap: Bootstrap
    ) -> tuple[Floats, Floats]:
        """`share_limits` [figures] over resampled prompts, by the prompts that each rests on."""
        draws = resampled(self.sums, bootstrap.num_bootstrap, figures, bootstrap.seed)
        return share_limits(draws, bootstrap.confidence, num_prompts)


_MAX_RESAMPLES = 500


def calibration(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, prompts: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """JSON values of rewards [pairs], with intervals over prompts.

    `auc`: chance that the chosen answer of any pair has a higher reward than the rejected one of
    any pair, ties half. `log_loss`: of the chosen answer's chance, in nats; ln 2 knows nothing.
    `ece`: expected calibration error over equally full bins. A resample shows a larger one than the
    pairs themselves, so its interval is moved back by that difference. `ece_by_chance`: what the
    same rewards would show on as many pairs if they were calibrated (consistency resampling,
    Broecker and Smith 2007); an `ece` within it is no sign of an error.
    """
    sides = np.stack([np.asarray(chosen, float), np.asarray(rejected, float)])
    _, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    num = min(bootstrap.num_bootstrap, _MAX_RESAMPLES)
    draws = np.array([
        _figures(sides[:, np.repeat(np.arange(len(prompt)), counts[prompt].astype(int))])
        for block in resample_counts(int(prompt.max()) + 1, num, bootstrap.seed)
        for counts in block
    ])  # fmt: skip
    figures = _figures(sides)
    draws[:, 2] = np.maximum(draws[:, 2] + figures[2] - draws[:, 2].mean(), 0.0)
    by_chance = _calibrated_errors(sides[0] - sides[1], num, bootstrap.seed)
    low, high = percentiles(np.column_stack([draws, by_chance]), bootstrap.confidence)
    means = (*figures, by_chance.mean())
    names = ("auc", "log_loss", "ece", "ece_by_chance")
    return dict(zip(names, map(asdict, intervals(means, low, high)), strict=True))


def _calibrated_errors(gaps: Floats, num: int, seed: int) -> Floats:
    """Errors [num] where each pair's better side is right as often as its gap says."""
    sure, random = np.abs(gaps), np.random.default_rng(seed)
    right = (random.random(len(gaps)) < expit(sure) for _ in range(num))
    return np.array([expected_error(np.where(is_right, sure, -sure)) for is_right in right])


def _figures(sides: Floats) -> tuple[float, float, float]:
    num, gaps = sides.shape[1], sides[0] - sides[1]
    above = rankdata(sides.ravel())[:num].sum() - num * (num + 1) / 2
    return above / num**2, float(log_losses(gaps).mean()), expected_error(gaps)
