"""Best-of-N curves of trained models over a pool, with the baselines of the same pool."""

from __future__ import annotations

import numpy as np

from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.evaluation.statistics import default_ks
from codepmp_ray.studies import confounders, measures
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import Plot, Series, Value
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.study import Context

# By label: [trainings, problems, ks], and [problems, ks] of what is at hand.
Curves = dict[str, Floats]


def ks(size: int) -> list[int]:
    return default_ks(size)


def ks_of(pool: Pool) -> list[int]:
    return ks(pool.size[1])


def curve(book: ScoreBook, models: list[Trained], pool: Pool) -> Floats:
    """[trainings, problems, ks] of the answer with the highest reward among k."""
    return np.array(
        [measures.best_of_k(book.pool_rewards(m, pool), pool.correct, ks_of(pool)) for m in models]
    )


def baseline_curves(pool: Pool) -> Curves:
    """Random, longest (in characters), oracle, style; vote and model prior where they are known."""
    lengths = np.array([[float(len(text)) for text in texts] for texts in pool.texts])
    ks = ks_of(pool)
    found = measures.baselines(pool.correct, lengths, pool.groups, pool.writers(all_named=True), ks)
    found["style"] = measures.best_of_k(confounders.pool_style(pool), pool.correct, ks)
    return found


def plot(
    context: Context, title: str, curves: Curves, baselines: Curves, points: list[int]
) -> Plot:
    """Curves with intervals; baselines thin."""
    series = [
        _series(context, label, values, points, is_baseline)
        for group, is_baseline in ((curves, False), (baselines, True))
        for label, values in group.items()
    ]
    return Plot(title, "candidates to choose from (N)", "share of questions right", series)


def _series(
    context: Context, label: str, values: Floats, points: list[int], is_baseline: bool
) -> Series:
    found = [measures.interval(values[..., i], context.confidence) for i in range(len(points))]
    return Series(
        label,
        [float(k) for k in points],
        [v.mean for v in found],
        *limits_of(found),
        is_baseline=is_baseline,
    )


def limits_of(found: list[Value]) -> tuple[list[float], list[float]]:
    """The lower and upper limits of a curve; none where its trainings are too few for any."""
    if any(value.low is None or value.high is None for value in found):
        return [], []
    return [v.low or 0.0 for v in found], [v.high or 0.0 for v in found]


def pool_tokens(context: Context, pool: Pool) -> int:
    """About how many tokens scoring the pool once takes: four characters each."""
    num_candidates = pool.size[1]
    prompts = sum(len(prompt) for prompt in pool.prompts) * num_candidates
    return (prompts + sum(len(text) for texts in pool.texts for text in texts)) // 4
