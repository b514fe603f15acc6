"""Every figure of a pool of candidates at once: curves by k, baselines, intervals, comparisons.

Baselines on the same pools stand beside any score: `random`, `length` (the longest of k) and
`shortest`, `model_prior` (the generator that does best on the other problems), `majority`,
`weighted_majority` and `oracle`. One resampling of problems moves all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.statistics.comparison import holm, note
from codepmp_ray.evaluation.statistics.picks import NanScores
from codepmp_ray.resampling import Floats

MAIN = "reward_model"


@dataclass(frozen=True)
class PoolArrays:
    """Pools as arrays [problems, candidates]; what is None has no series.

    Attributes:
        passed: 0 or 1 (or shares of tests) of each candidate.
        scores: reward by the name of the model; the one called "reward_model" is the main one.
        groups: equal for equal answers.
        lengths: of the answers, in any unit.
        models: who wrote each candidate.
        present: False where a problem has fewer candidates; None for whole pools.
    """

    passed: npt.ArrayLike
    scores: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    groups: npt.ArrayLike | None = None
    lengths: npt.ArrayLike | None = None
    models: npt.ArrayLike | None = None
    present: npt.ArrayLike | None = None


@dataclass(frozen=True)
class Settings:
    """How figures are made. `num_draws` is of weighted votes, subsets for each problem."""

    confidence: float = 0.95
    num_bootstrap: int = 10_000
    seed: int = 0
    num_draws: int = 64
    nan_scores: NanScores = "refuse"


def measure_pools(
    pools: PoolArrays, ks: Sequence[int] | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """JSON values: `k`, `series` by name, `comparisons` at the largest k, counts.

    Every series has `accuracy`, `low` and `high` by k; those that pick one candidate also
    `one_draw_sd`, sampled ones `monte_carlo_error`. Raises InputError for pools that do not fit.
    """
    config = settings or Settings()
    width = np.asarray(pools.passed).shape[-1]
    chosen_ks = list(ks) if ks is not None else statistics.default_ks(width)
    values, errors = series(pools, chosen_ks, config)
    columns = np.concatenate(list(values.values()), axis=1)
    intervals = statistics.bootstrap_intervals(
        columns, config.confidence, config.num_bootstrap, config.seed
    )
    num_ks = len(chosen_ks)
    found: dict[str, Any] = {}
    for number, (name, expected) in enumerate(values.items()):
        part = intervals[number * num_ks : (number + 1) * num_ks]
        found[name] = {
            "accuracy": [interval.mean for interval in part],
            "low": [interval.low for interval in part],
            "high": [interval.high for interval in part],
        }
        if name in errors:
            found[name]["monte_carlo_error"] = errors[name].tolist()
        else:
            found[name]["one_draw_sd"] = statistics.one_draw_sd(expected).tolist()
    comparisons = compare_series(
        {name: expected[:, -1] for name, expected in values.items()}, list(pools.scores), config
    )
    return {
        **_sizes(pools),
        "confidence": config.confidence,
        "num_bootstrap": config.num_bootstrap,
        "k": chosen_ks,
        "series": found,
        "comparisons": [{"k": chosen_ks[-1], **comparison} for comparison in comparisons],
        "note": note([comparison["test_p_value"] for comparison in comparisons])
        if comparisons
        else "",
    }


def series(
    pools: PoolArrays, ks: Sequence[int], settings: Settings
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Expected accuracies [problems, ks] by name, and Monte Carlo errors [ks] of sampled ones."""
    passed, present = pools.passed, pools.present
    nan_scores: NanScores = settings.nan_scores
    made = {
        name: statistics.best_of_k(scores, passed, ks, present, nan_scores)
        for name, scores in pools.scores.items()
    }
    rules, errors = baselines(pools, ks, 16 * settings.num_draws, settings.seed)
    oracle = rules.pop("oracle")
    made |= rules
    for name, scores in pools.scores.items():
        if pools.groups is None:
            break
        label = "weighted_majority" if name == MAIN else f"weighted_majority:{name}"
        weights = np.nan_to_num(statistics.vote_weights(scores), nan=0.0)
        made[label], errors[label] = statistics.weighted_majority(
            pools.groups, weights, passed, ks, settings.num_draws, settings.seed, present
        )
    return made | {"oracle": oracle}, errors


def baselines(
    pools: PoolArrays, ks: Sequence[int], num_draws: int, seed: int = 0
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The same of what needs no reward model; a vote that is not exact takes `num_draws`."""
    passed, present = pools.passed, pools.present
    made = {"random": statistics.random_choice(passed, ks, present)}
    errors: dict[str, Floats] = {}
    if pools.lengths is not None:
        lengths = np.asarray(pools.lengths, float)
        made["length"] = statistics.best_of_k(lengths, passed, ks, present)
        made["shortest"] = statistics.best_of_k(-lengths, passed, ks, present)
    if pools.models is not None:
        prior = statistics.model_prior_scores(pools.models, passed, present)
        made["model_prior"] = statistics.best_of_k(prior, passed, ks, present)
    if pools.groups is not None:
        made["majority"], errors["majority"] = statistics.majority(
            pools.groups, passed, ks, num_draws, seed, present
        )
    return made | {"oracle": statistics.oracle(passed, ks, present)}, errors


def compare_series(
    values: Mapping[str, Floats], models: Sequence[str], settings: Settings
) -> list[dict[str, Any]]:
    """Each model against the baselines that need no model, and against the models after it.

    `values` [problems] by name. p-values stand by themselves (`test_p_value`) and adjusted for
    their number (`holm_p_value`).
    """
    pairs = [
        (model, other)
        for number, model in enumerate(models)
        for other in (
            *models[number + 1 :],
            *(n for n in ("random", "length", "model_prior", "majority") if n in values),
        )
    ]
    if not pairs:
        return []
    gaps = np.stack([values[left] - values[right] for left, right in pairs], axis=1)
    compared = statistics.compare_gaps(
        gaps, settings.confidence, settings.num_bootstrap, settings.seed
    )
    adjusted = holm([comparison.test_p_value for comparison in compared])
    return [
        {"left": left, "right": right, **asdict(comparison), "holm_p_value": p_value}
        for (left, right), comparison, p_value in zip(pairs, compared, adjusted, strict=True)
    ]


def _sizes(pools: PoolArrays) -> dict[str, int]:
    passed = np.asarray(pools.passed)
    if passed.ndim != 2:
        raise InputError(f"Pools are arrays [problems, candidates], not {passed.shape}.")
    present = np.ones(passed.shape, bool) if pools.present is None else np.asarray(pools.present)
    sizes = present.sum(axis=1)
    scores = [np.asarray(values, float) for values in pools.scores.values()]
    return {
        "num_problems": len(passed),
        "num_candidates": passed.shape[1],
        "num_short_pools": int((sizes < passed.shape[1]).sum()),
        "num_empty_pools": int((sizes == 0).sum()),
        "num_nan_scores": int(sum((np.isnan(values) & present).sum() for values in scores)),
    }
