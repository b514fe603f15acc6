"""Figures 4, 8 and 9: how many finetuning pairs PMP is worth, by best-of-N and by accuracy."""

from __future__ import annotations

from functools import partial

from codepmp_ray.analysis.curves import curve
from codepmp_ray.analysis.sample_efficiency import Multiple, equivalent_samples
from codepmp_ray.errors import InputError
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common, curves
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import Outcome, Plot, Row, Series, Table
from codepmp_ray.studies.pools import LabelledPool
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

_EQUIVALENCE_DRAWS = 1000


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
    """The outcome of arrays [seeds, problems] of both arms, one for each of the sizes."""
    sizes = context.sizes(context.sets()[0])
    series, rows = [], []
    for arm in (common.WITHOUT, common.WITH):
        found = [measures.interval(v, context.confidence) for v in values[arm]]
        series.append(
            Series(
                arm,
                [float(size) for size in sizes],
                [v.mean for v in found],
                [v.mean if v.low is None else v.low for v in found],
                [v.mean if v.high is None else v.high for v in found],
            )
        )
    for index, size in enumerate(sizes):
        cells = [measures.interval(values[arm][index], context.confidence) for arm in values]
        rows.append(Row(f"{size:,} pairs", list(cells), [None, None]))
    comparisons = [
        measures.compare(
            f"{what}, {size:,} finetuning pairs",
            values[common.WITH][index],
            values[common.WITHOUT][index],
            context.confidence,
        )
        for index, size in enumerate(sizes)
    ]
    multiples = _multiples(context, sizes, values)
    few, many = paper.FIGURE_4_MATCH
    return Outcome(
        summary=f"{common.conclude(comparisons)} {_in_words(multiples)}".strip(),
        plots=[Plot(what, "finetuning pairs", "accuracy", series)],
        tables=[Table(what, [common.WITHOUT, common.WITH], rows)],
        comparisons=comparisons,
        facts={
            "equivalent_samples": [multiple.as_json() for multiple in multiples],
            "paper": f"{few:,} with PMP match {many:,} without ({many // few}x): "
            f"{paper.SOURCE}, Figure 4, Qwen2-7B",
        },
        differs=common.differences(context, context.sets()[:1]),
    )


def _multiples(
    context: Context, sizes: list[int], values: dict[str, list[Floats]]
) -> list[Multiple]:
    """One for each size with PMP; none where one size is all there is."""
    if len(sizes) < 2:
        return []
    draws = min(_EQUIVALENCE_DRAWS, context.bench.config.num_bootstrap)
    with_pmp, without = (curve(sizes, values[arm], draws) for arm in (common.WITH, common.WITHOUT))
    return equivalent_samples(with_pmp, without, context.confidence)


def _in_words(multiples: list[Multiple]) -> str:
    if not multiples:
        return ""
    first = multiples[0]
    return f"{first.size:,.0f} pairs with PMP are worth {first.text} times as many without."


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
    return by_size(context, models, values, f"accuracy on {context.bench.set(name).title}")


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
    outcome.facts["baselines"] = _baselines(pool, at)
    return outcome


def _baselines(pool: LabelledPool, at: int) -> dict[str, float]:
    return {name: float(v[0, :, at].mean()) for name, v in curves.baseline_curves(pool).items()}


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
