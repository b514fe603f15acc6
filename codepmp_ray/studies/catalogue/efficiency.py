"""Figures 4, 8 and 9: how many finetuning pairs PMP is worth, by best-of-N and by accuracy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from codepmp_ray.analysis.curves import equivalent_samples
from codepmp_ray.errors import InputError
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common, curves
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import Outcome, Plot, Series
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm


def arms(context: Context) -> list[Arm]:
    name = context.sets()[0]
    return [
        arm
        for size in context.sizes(name)
        for arm in common.both_arms(context, (name,), size, f"{size} pairs")
    ]


def by_size(
    context: Context, models: Models, values: dict[str, list[Floats]], what: str
) -> Outcome:
    """The outcome of arrays [trainings, problems] of both arms, one for each of the sizes.

    All sizes together are one comparison and give one multiple, which is told where they differ.
    """
    name = context.sets()[0]
    sizes = context.sizes(name)
    series = []
    for arm in (common.WITHOUT, common.WITH):
        found = [measures.interval(v, context.confidence) for v in values[arm]]
        xs, ys = [float(size) for size in sizes], [v.mean for v in found]
        series.append(Series(arm, xs, ys, *curves.limits_of(found)))
    rows = {f"{n:,} pairs": list(cells) for n, *cells in zip(sizes, *values.values(), strict=True)}
    with_pmp, without = values[common.WITH], values[common.WITHOUT]
    few, many = paper.FIGURE_4_MATCH
    facts: dict[str, Any] = {
        "paper": f"{few:,} with PMP match {many:,} without ({many // few}x): "
        f"{paper.SOURCE}, Figure 4, Qwen2-7B"
    }
    told = ""
    if len(sizes) > 1:
        multiple = equivalent_samples(sizes, with_pmp, without, context.confidence)
        facts["equivalent_samples"] = multiple.as_json()
        told = (
            f"Over {sizes[0]:,} to {sizes[-1]:,} pairs, one pair with PMP is worth "
            f"{multiple.text} without."
        )
    question = f"{what}, {', '.join(f'{size:,}' for size in sizes)} finetuning pairs together"
    mean_of = [np.mean(np.stack(arm), axis=0) for arm in (with_pmp, without)]
    outcome = common.set_outcome(context, [name])
    outcome.plots = [Plot(what, "finetuning pairs", "accuracy", series)]
    outcome.tables = [common.table(context, what, list(values), rows)]
    outcome.comparisons = [common.of_pmp(context, question, *mean_of, told=told)]
    outcome.facts = facts
    return outcome


def measure_accuracy(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """Figure 8."""
    name = context.sets()[0]
    test = context.test_pairs(name)
    values = {
        arm: [
            common.shares_of(book, models[f"{size} pairs, {arm}"], test)
            for size in context.sizes(name)
        ]
        for arm in (common.WITHOUT, common.WITH)
    }
    outcome = by_size(context, models, values, f"accuracy on {context.bench.set(name).title}")
    rules = common.rules(context, [name])
    title = "The same pairs without a model"
    outcome.tables.append(common.table(context, title, ["accuracy"], rules))
    return outcome


def measure_best_of_n(
    context: Context, models: Models, book: ScoreBook, *, k: int | None
) -> Outcome:
    """Figures 4 and 9: accuracy of the pick among `k` answers, by default all of a pool's."""
    (pool,) = context.pools()[:1]
    points = curves.ks_of(pool)
    if k is not None and k not in points:
        raise InputError(
            f"Best-of-{k} needs pools of {k} answers, and {context.name} has {pool.size[1]}.",
            f"Raise studies.{context.name}.num_candidates.",
        )
    at = len(points) - 1 if k is None else points.index(k)
    values = {
        arm: [
            curves.curve(book, models[f"{size} pairs, {arm}"], pool)[:, :, at]
            for size in context.sizes(context.sets()[0])
        ]
        for arm in (common.WITHOUT, common.WITH)
    }
    outcome = by_size(context, models, values, f"best of {points[at]} on {pool.name}")
    outcome.differs.append(f"Answers: {pool.origin}.")
    base = {name: [v[:, at]] for name, v in curves.baseline_curves(pool).items()}
    title = "The same answers without a model"
    outcome.tables.append(common.table(context, title, ["accuracy"], base))
    if not common.add_pool(outcome, pool):
        outcome.comparisons = []
    return outcome


def _pool_tokens(context: Context) -> int:
    return 2 * len(context.options.sizes) * curves.pool_tokens(context, context.pools()[0])


_QUESTION = "How many finetuning pairs does pretraining on code pairs save?"
STUDIES = (
    Study(
        "figure4",
        "Figure 4",
        "sample efficiency by best-of-N",
        _QUESTION,
        arms,
        partial(measure_best_of_n, k=None),
        _pool_tokens,
    ),
    Study(
        "figure8",
        "Figure 8",
        "sample efficiency by accuracy on pairs",
        _QUESTION,
        arms,
        measure_accuracy,
        lambda context: (
            2 * len(context.options.sizes) * common.pair_tokens(context, context.sets()[:1])
        ),
    ),
    Study(
        "figure9",
        "Figure 9",
        "sample efficiency by best-of-4",
        _QUESTION,
        arms,
        partial(measure_best_of_n, k=4),
        _pool_tokens,
    ),
)
