"""What choosing harder by the reward does to correctness (Gao, Schulman and Hilton 2022).

The chosen reward rises with k by construction. Correctness rises with it at first; where it falls
again the reward is followed beyond what it knows. The fall is looked for from every k to the
largest, with intervals that hold together, since the best k was not known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.evaluation.statistics import (
    best_of_k,
    bootstrap_intervals,
    default_ks,
    expected_best_score,
    oracle,
    random_choice,
)
from codepmp_ray.evaluation.statistics.intervals import differences
from codepmp_ray.resampling import Interval


@dataclass(frozen=True)
class OverOptimisation:
    """By k: `proxy`, the expected reward of the pick in standard deviations from its pool's mean,
    and `gold`, how often it is right; beside it `oracle`, whether any of the k is, and `random`.

    `drop` is gold at `peak_k` minus gold at the largest k; its interval allows for the peak having
    been looked for. `is_seen`: the interval is above zero.
    """

    ks: list[int]
    proxy: list[float]
    gold: list[Interval]
    oracle: list[float]
    random: float
    peak_k: int
    drop: Interval
    is_seen: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def over_optimisation(
    scores: npt.ArrayLike,
    passed: npt.ArrayLike,
    ks: Sequence[int] | None = None,
    present: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> OverOptimisation:
    """From pools [problems, candidates]. Raises InputError as `best_of_k`."""
    reward = np.asarray(scores, float)
    chosen_ks = list(ks) if ks is not None else default_ks(reward.shape[1])
    gold = best_of_k(reward, passed, chosen_ks, present)
    mask = np.ones(reward.shape, bool) if present is None else np.asarray(present, bool)
    known = mask.any(axis=1)
    inside = np.where(mask, reward, np.nan)[known]
    spread = np.nanstd(inside, axis=1, keepdims=True)
    usable = spread[:, 0] > 0  # where all rewards are equal there is nothing to follow
    centred = inside - np.nanmean(inside, axis=1, keepdims=True)
    standard = np.nan_to_num(centred / np.where(spread > 0, spread, 1))
    proxy = np.zeros(len(chosen_ks))
    if usable.any():
        proxy = expected_best_score(standard[usable], chosen_ks, mask[known][usable]).mean(axis=0)
    falls = gold - gold[:, -1:]
    alone = 1 - (1 - confidence) / max(len(chosen_ks) - 1, 1)
    drops = differences(falls, alone, num_bootstrap, seed)
    peak = int(gold.mean(axis=0).argmax())
    drop = drops[peak]
    is_last = peak == len(chosen_ks) - 1
    return OverOptimisation(
        chosen_ks,
        proxy.tolist(),
        bootstrap_intervals(gold, confidence, num_bootstrap, seed),
        oracle(passed, chosen_ks, present).mean(axis=0).tolist(),
        float(random_choice(passed, [1], present).mean()),
        chosen_ks[peak],
        Interval(0.0, 0.0, 0.0) if is_last else Interval(drop.mean, drop.low, drop.high),
        not is_last and drop.low > 0,
    )
