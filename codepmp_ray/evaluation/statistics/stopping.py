"""Best of N that stops early: how much is saved, what it costs, and the threshold that may be used.

Answers are drawn `at_once` at a time, in any order, until the best reward so far reaches a
threshold or all N are drawn. The expectation over all orders is exact. Let L of N rewards lie below
the threshold. The s first answers all do with probability C(L, s) / C(N, s), and then those that
come next are a random subset of the other N - s, whose best is picked.

The loss is the accuracy of the best of all N less that of the pick. It is rare and large, where
percentiles of the bootstrap are too narrow: one wrong pick among 150 problems gives 2.0 points, and
3.7 are not excluded. The bound here is exact for any number of independent problems: it is a bet
against the loss, whose capital is seldom large where the loss is.

Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics.comparison import bootstrap_intervals, compare
from codepmp_ray.evaluation.statistics.picks import (
    NanScores,
    best_of_k,
    checked,
    max_rank_probability,
    mean_over_ties,
    over_sizes,
    random_choice,
    subset_ratio,
)
from codepmp_ray.resampling import Floats, resampled

# Shares of the capital that are bet, each with an equal part of it; at most 1 keeps it positive.
_BETS = np.array([1.0, 0.5, 0.25, 0.125, 0.0625])
_MAX_THRESHOLDS = 128
# A threshold is tried on the held-out problems if it passes in so many resamples of the others.
_CHANCE_TO_PASS = 0.9


@dataclass(frozen=True)
class StopSettings:
    """How a threshold is fitted.

    Attributes:
        max_loss: of accuracy; the upper bound has to lie within it.
        at_once: answers that are drawn before the next look at their rewards.
        confidence: of the bound (one-sided) and of the intervals.
    """

    max_loss: float = 0.02
    at_once: int = 1
    confidence: float = 0.95
    num_bootstrap: int = 2_000
    seed: int = 0
    nan_scores: NanScores = "refuse"


def stopped(
    scores: npt.ArrayLike,
    passed: npt.ArrayLike,
    thresholds: Sequence[float],
    at_once: int = 1,
    present: npt.ArrayLike | None = None,
    nan_scores: NanScores = "refuse",
) -> tuple[Floats, Floats]:
    """(accuracy of the pick, answers drawn), both [problems, thresholds], over all orders.

    A score that is not a number is refused, or with nan_scores="last" reaches no threshold.
    Raises InputError for those and for shapes that do not fit.
    """
    values, correct, mask = checked(scores, passed, present, nan_scores)
    limits = np.asarray(thresholds, float)
    if at_once < 1 or limits.ndim != 1 or np.isnan(limits).any():
        raise InputError(f"at_once={at_once} and thresholds {limits}: at least 1, and numbers.")

    def compute(_: Sequence[int], arrays: list[Floats]) -> Floats:
        rewards = np.where(np.isnan(arrays[0]), -np.inf, arrays[0])
        order = np.argsort(rewards, axis=1, kind="stable")
        rewards = np.take_along_axis(rewards, order, axis=1)
        is_new = rewards[:, 1:] != rewards[:, :-1]
        right = mean_over_ties(is_new, np.take_along_axis(arrays[1], order, axis=1))
        num_below = (rewards[:, :, None] < limits).sum(axis=1)
        of_rank, drawn = _by_num_below(rewards.shape[1], at_once)
        accuracy = np.take_along_axis(right @ of_rank.T, num_below, axis=1)
        return np.concatenate([accuracy, drawn[num_below]], axis=1)

    found = over_sizes(compute, [1] * (2 * len(limits)), mask, [values, correct])
    return found[:, : len(limits)], found[:, len(limits) :]


def _by_num_below(num: int, at_once: int) -> tuple[Floats, Floats]:
    """For each number 0..N of rewards below the threshold: the chance [N + 1, N] of each rank,
    worst first, to be picked, and the mean number drawn [N + 1].
    """
    of_rank, drawn = np.zeros((num + 1, num)), np.zeros(num + 1)
    starts = range(0, num, at_once)
    for start, reached in zip(starts, subset_ratio(num, starts), strict=True):
        size = min(at_once, num - start)
        best = max_rank_probability(num - start, [size])[0]
        of_rank[:, start:] += reached[:, None] * best
        drawn += size * reached
    of_rank[np.arange(num) < np.arange(num + 1)[:, None]] = 0.0
    of_rank[num, num - 1] = 1.0
    return of_rank, drawn


def upper_mean(losses: npt.ArrayLike, confidence: float = 0.95) -> float:
    """Upper limit of the mean of independent `losses` [problems] between -1 and 1, at least 0.

    It is below the true mean with probability 1 - confidence at most, however few problems.
    Raises InputError for other losses.
    """
    values = np.asarray(losses, float)
    if values.ndim != 1 or not (np.abs(values) <= 1 + 1e-9).all():
        raise InputError("Losses are a list of numbers between -1 and 1.")
    low, high = 0.0, 1.0  # the capital grows with the mean that is bet against
    while high - low > 1e-6:
        middle = (low + high) / 2
        capital = np.exp(_log_bets(values[:, None], middle).sum(axis=1)).mean()
        is_refuted = capital >= 1 / (1 - confidence)
        low, high = (low, middle) if is_refuted else (middle, high)
    return high


def num_problems_needed(max_loss: float, confidence: float) -> int:
    """Fewest problems whose bound is within `max_loss`: if none of them loses anything."""
    num = 1
    while float(np.mean((1 + _BETS * max_loss) ** num)) < 1 / (1 - confidence):
        num += 1
    return num


def _log_bets(losses: Floats, mean: float) -> Floats:
    """Logarithm of what each problem makes of the capital of each bet against "the mean is `mean`
    or more" [bets, problems, columns]."""
    return np.log1p(_BETS[:, None, None] * (mean - losses))


def fit_threshold(
    scores: npt.ArrayLike,
    passed: npt.ArrayLike,
    present: npt.ArrayLike | None = None,
    settings: StopSettings | None = None,
) -> dict[str, Any]:
    """JSON values: the threshold that draws fewest answers within `max_loss`, or why there is none.

    It is chosen on one random half of the problems. All figures are of the other half: the loss
    and its upper bound, what the reward adds to a random pick, the share of answers saved.
    `threshold` is null, and `why_not` says why, where the reward does not beat random or the bound
    is not within `max_loss`. Raises what `stopped` raises.
    """
    config = settings or StopSettings()
    values, right, mask = checked(scores, passed, present, config.nan_scores)
    rows = np.random.default_rng(config.seed).permutation(np.flatnonzero(mask.any(axis=1)))
    fit, held_out = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    found: dict[str, Any] = {
        **asdict(config),
        "num_candidates": values.shape[1],
        "num_fit": len(fit),
        "num_held_out": len(held_out),
        "threshold": None,
    }
    needed = num_problems_needed(config.max_loss, config.confidence)
    if len(fit) < needed:
        why = f"each half needs {needed} problems at least to bound a loss by {config.max_loss:g}"
        return found | {"why_not": f"{why}; one has {len(fit)}"}

    def of(part: npt.NDArray[np.int64], limits: Sequence[float]) -> tuple[Floats, Floats, Floats]:
        """(loss and share drawn [problems, thresholds], accuracy of all N [problems])"""
        arrays = values[part], right[part]
        whole = best_of_k(*arrays, [values.shape[1]], mask[part], config.nan_scores)
        kept, drawn = stopped(*arrays, limits, config.at_once, mask[part], config.nan_scores)
        return whole - kept, drawn / mask[part].sum(axis=1)[:, None], whole[:, 0]

    limits = _thresholds(values[fit][mask[fit]])
    losses, shares, _ = of(fit, limits)
    logs = np.concatenate(_log_bets(losses, config.max_loss), axis=1)
    sums = resampled(logs, config.num_bootstrap, lambda sums: sums, config.seed)
    capital = np.exp(sums).reshape(len(sums), len(_BETS), len(limits)).mean(axis=1)
    may_pass = (capital >= 1 / (1 - config.confidence)).mean(axis=0) >= _CHANCE_TO_PASS
    if not may_pass.any():
        why = "no threshold saves answers on the half that it is chosen on within max_loss="
        return found | {"why_not": f"{why}{config.max_loss:g}"}
    threshold = limits[int(np.where(may_pass, shares.mean(axis=0), np.inf).argmin())]
    losses, shares, whole = of(held_out, [threshold])
    chance = random_choice(right[held_out], [1], mask[held_out])[:, 0]
    gain = compare(whole, chance, config.confidence, config.num_bootstrap, config.seed)
    upper = upper_mean(losses[:, 0], config.confidence)
    (saved,) = bootstrap_intervals(1 - shares, config.confidence, config.num_bootstrap, config.seed)
    found |= {
        "tried": threshold,
        "accuracy_of_all": float(whole.mean()),
        "over_random": {"mean": gain.mean, "low": gain.low, "high": gain.high},
        "loss": {"mean": float(losses.mean()), "upper": upper},
        "saved": asdict(saved),
    }
    why = []
    if gain.low <= 0:
        why.append(
            f"the reward does not beat a random pick: {100 * gain.mean:+.1f} points "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        )
    if upper > config.max_loss:
        allowed = f"where {100 * config.max_loss:g} are allowed"
        why.append(f"the loss may be {100 * upper:.1f} points {allowed}")
    return found | {"threshold": None if why else threshold, "why_not": "; ".join(why)}


def _thresholds(rewards: Floats) -> list[float]:
    """Finite rewards that were seen, evenly by rank."""
    seen = np.unique(rewards[np.isfinite(rewards)])
    places = np.linspace(0, len(seen) - 1, min(_MAX_THRESHOLDS, len(seen)))
    return seen[np.unique(places.round().astype(int))].tolist()
