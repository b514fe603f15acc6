"""Every figure of one scored pool: style, who wrote it, scripts and fences, best of k.

Best of k shows what choosing harder by the reward does to correctness (Gao, Schulman and Hilton
2022). The chosen reward rises with k by construction. Correctness rises with it at first; where it
falls again the reward is followed beyond what it knows. The fall is looked for from every k to the
largest, with intervals that hold together, since the best k was not known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from codepmp_ray.evaluation.audit.dependence import Dependence, score_by_length, style_dependence
from codepmp_ray.evaluation.audit.features import FEATURES, fence_of, script_of, style_features
from codepmp_ray.evaluation.audit.generators import choices, generator_style
from codepmp_ray.evaluation.audit.groups import group_effects
from codepmp_ray.evaluation.audit.pools import ScoredPool
from codepmp_ray.evaluation.audit.within import checked_answers
from codepmp_ray.evaluation.statistics import (
    best_of_k,
    bootstrap_intervals,
    default_ks,
    expected_best_score,
    oracle,
    padded,
    random_choice,
)
from codepmp_ray.evaluation.statistics.comparison import differences
from codepmp_ray.resampling import Interval

Draws = tuple[float, int, int]  # confidence, number of resamples, seed


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


def measure_pool(pool: ScoredPool, draws: Draws) -> dict[str, Any]:
    """JSON values. What the pool cannot tell is null: style without two answers to a problem or
    without texts, generators without two of them, best of k with one candidate.

    Raises InputError for a score that is no finite number.
    """
    checked_answers(pool.scores, pool.correct, pool.problems)
    style: Dependence | None = None
    facts: dict[str, Any] = {"scripts": None, "fences": None, "lengths": None}
    if pool.texts is not None:
        style = _style(pool, draws)
        facts = text_figures(pool, draws)
    named = [i for i, model in enumerate(pool.models) if model is not None]
    part = (
        [pool.scores[i] for i in named],
        [pool.correct[i] for i in named],
        [str(pool.models[i]) for i in named],
        [pool.problems[i] for i in named],
    )
    generators = generator_style(*part, *draws)
    optimised = best_of_pool(pool, draws)
    figures = {
        "name": pool.name,
        "num_problems": len(set(pool.problems)),
        "num_answers": len(pool.scores),
        "share_right": float(np.mean(pool.correct)),
        "num_generators": len(set(part[2])),
        "num_unnamed": len(pool.scores) - len(named),
        **pool.facts,
        "style": style,
        "generators": generators,
        "choices": choices(*part, *draws) if generators is not None else None,
        "over_optimisation": optimised,
        **facts,
    }
    return TypeAdapter(Any).dump_python(figures)


def text_figures(pool: ScoredPool, draws: Draws) -> dict[str, Any]:
    """`scripts`, `fences` and `lengths` of answers whose texts are there."""
    texts = pool.texts or []
    found: dict[str, Any] = {}
    for name, group_of in (("scripts", script_of), ("fences", fence_of)):
        groups = [group_of(text) for text in texts]
        found[name] = group_effects(pool.scores, pool.correct, groups, pool.problems, *draws)
    sizes = [len(text) for text in texts]
    found["lengths"] = score_by_length(sizes, pool.scores, pool.correct, pool.problems, *draws)
    return found


def best_of_pool(pool: ScoredPool, draws: Draws) -> OverOptimisation | None:
    """None where no problem has two candidates to choose from."""
    by_problem: dict[str, list[int]] = {}
    for number, problem in enumerate(pool.problems):
        by_problem.setdefault(problem, []).append(number)
    if max(map(len, by_problem.values()), default=0) < 2:
        return None
    scores, present = padded([[pool.scores[i] for i in row] for row in by_problem.values()])
    passed, _ = padded([[pool.correct[i] for i in row] for row in by_problem.values()])
    return over_optimisation(scores, passed, None, present, *draws)


def _style(pool: ScoredPool, draws: Draws) -> Dependence | None:
    if len(set(pool.problems)) == len(pool.problems):
        return None
    found = [style_features(text) for text in pool.texts or []]
    columns = {name: [features[name] for features in found] for name in FEATURES}
    return style_dependence(pool.scores, pool.correct, columns, pool.problems, *draws)
