"""Figure 5 and the question about HH-RLHF: accuracy by the number of code pairs in PMP.

All points of a curve are branches of one run, each finetuned alike; "no PMP" is the same finetuning
of the model that PMP begins with.
"""

from __future__ import annotations

import numpy as np

from codepmp_ray.analysis.curves import curve
from codepmp_ray.analysis.scaling_laws import (
    EXPONENT_RANGE,
    POWER,
    SATURATING,
    UNDECIDED,
    ScalingVerdict,
    fit_scaling,
)
from codepmp_ray.resampling import Interval
from codepmp_ray.studies import measures
from codepmp_ray.studies.catalogue import common, curves
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import Comparison, Outcome, Plot, Row, Series, Table, Value
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

_NO_PMP = "no PMP"
_LAW_DRAWS = 500


def _family_arms(context: Context, sets: tuple[str, ...], size: int) -> list[Arm]:
    """Without PMP, then after each member of the family, shortest first."""
    families = [context.bench.plans.pmp_family(seed, context.model) for seed in context.seeds]
    group = f"{size} finetuning pairs"
    found = [
        common.rm_arm(
            context, f"{group}, {_NO_PMP}", lambda _: context.model, sets, size, group=group
        )
    ]
    # The whole run first: it leaves the checkpoints that its branches begin with.
    for index, member in enumerate(families[0]):
        num = context.bench.plans.pmp_pairs_of(member)
        label = f"{group}, PMP on {num}"
        found.append(
            common.rm_arm(
                context,
                label,
                lambda seed, i=index: families[seed][i],
                sets,
                size,
                x=num,
                group=group,
            )
        )
    return found


def arms_of_figure_5(context: Context) -> list[Arm]:
    name = context.sets()[0]
    return _family_arms(context, (name,), context.num_train(name))


def arms_of_seed_000(context: Context) -> list[Arm]:
    sets = tuple(context.sets())
    return [arm for size in context.sizes(*sets) for arm in _family_arms(context, sets, size)]


def measure_figure_5(context: Context, models: Models, book: ScoreBook) -> Outcome:
    name = context.sets()[0]
    outcome, test = common.set_outcome(context, [name]), context.test_pairs(name)
    arms, what = arms_of_figure_5(context), f"accuracy on {context.bench.set(name).title}"
    shares = [common.shares_of(book, models[arm.label], test) for arm in arms]
    _add_curves(context, outcome, what, arms, shares)
    rules = common.rules(context, [name])
    outcome.tables.append(common.table(context, f"{what} without a model", ["accuracy"], rules))
    for pool in context.pools():
        if common.add_pool(outcome, pool):
            last = curves.ks_of(pool)[-1]
            found = [curves.curve(book, models[arm.label], pool)[:, :, -1] for arm in arms]
            _add_curves(context, outcome, f"best of {last} on {pool.name}", arms, found)
    outcome.summary = _summary(outcome)
    return outcome


def measure_seed_000(context: Context, models: Models, book: ScoreBook) -> Outcome:
    names = context.sets()
    arms, outcome = arms_of_seed_000(context), common.set_outcome(context, names)
    tests = [context.test_pairs(name) for name in names]
    values = [
        np.concatenate([common.shares_of(book, models[arm.label], test) for test in tests], axis=1)
        for arm in arms
    ]
    titles = [context.bench.set(name).title for name in names]
    _add_curves(context, outcome, f"accuracy on {', '.join(titles)}", arms, values)
    rules = common.rules(context, names)
    outcome.tables.append(common.table(context, "Accuracy without a model", titles, rules))
    outcome.summary = _summary(outcome)
    return outcome


def _summary(outcome: Outcome) -> str:
    """The laws' verdicts with their reasons."""
    laws = outcome.facts["laws"]
    found = "; ".join(f"{name}: {law['verdict']}. {law['reason']}" for name, law in laws.items())
    text = f"Laws: {found}"
    if all(law["verdict"] == UNDECIDED for law in laws.values()):
        text += " Whether returns diminish cannot be said at this size."
    return text


def _add_curves(
    context: Context, outcome: Outcome, what: str, arms: list[Arm], values: list[Floats]
) -> None:
    """One curve for each group of arms, with its laws and the gain of the largest run."""
    series, rows, law_rows = [], [], []
    for group in dict.fromkeys(arm.group for arm in arms):
        members = [(arm, v) for arm, v in zip(arms, values, strict=True) if arm.group == group]
        (_, base), *rest = members
        rest.sort(key=lambda item: item[0].x)
        found = [measures.interval(v, context.confidence) for _, v in rest]
        xs = [arm.x for arm, _ in rest]
        series.append(Series(group, xs, [v.mean for v in found], *curves.limits_of(found)))
        floor = measures.interval(base, context.confidence)
        label = f"{group}, {_NO_PMP}"
        series.append(Series(label, xs, [floor.mean] * len(xs), is_baseline=True))
        rows.append(Row(label, [floor], [None]))
        rows += [Row(arm.label, [v], [None]) for (arm, _), v in zip(rest, found, strict=True)]
        outcome.comparisons += _ends(context, what, group, base, rest)
        laws = _laws(context, rest)
        outcome.facts.setdefault("laws", {})[f"{what}, {group}"] = laws.as_json()
        law_rows += _law_rows(laws, group)
        series += _fitted(laws, group, xs)
    outcome.plots.append(Plot(what, "pairs in PMP", "accuracy", series))
    outcome.tables.append(Table(what, ["accuracy"], rows))
    low, high = EXPONENT_RANGE
    outcome.tables.append(
        Table(
            f"Laws of the error of {what}, b x^-c and f + b x^-c of x pairs; c from {low:g} to "
            f"{high:g}",
            ["exponent c", "floor f"],
            law_rows,
            unit="number",
            remarks="verdict",
        )
    )


def _ends(
    context: Context, what: str, group: str, base: Floats, rest: list[tuple[Arm, Floats]]
) -> list[Comparison]:
    (first, low), (last, high) = rest[0], rest[-1]
    head = f"{what}, {group}"
    found = [common.of_pmp(context, f"{head}: PMP on {last.x:.0f} against none", high, base)]
    if first is not last:
        question = f"{head}: PMP on {last.x:.0f} against {first.x:.0f}"
        found.append(measures.compare(question, high, low, context.confidence))
    return found


def _laws(context: Context, rest: list[tuple[Arm, Floats]]) -> ScalingVerdict:
    sizes, values = [arm.x for arm, _ in rest], [v for _, v in rest]
    measured = curve(sizes, values, min(_LAW_DRAWS, context.bench.config.num_bootstrap))
    return fit_scaling(measured, context.confidence)


def _law_rows(laws: ScalingVerdict, group: str) -> list[Row]:
    """Both laws with their intervals; the verdict is one on the two of them."""
    return [
        Row(
            f"{group}, {name}",
            [None, None]
            if law is None
            else [_value(law.exponent), _value(law.floor) if name == SATURATING else None],
            [None, None],
            laws.verdict,
        )
        for name, law in ((POWER, laws.power), (SATURATING, laws.saturating))
    ]


def _value(found: Interval) -> Value:
    return Value(found.mean, found.low, found.high)


def _fitted(laws: ScalingVerdict, group: str, xs: list[float]) -> list[Series]:
    """Both laws as curves, where there are points enough to fit them."""
    at = np.geomspace(min(xs), max(xs), 25)
    return [
        Series(f"{group}, {name}", at.tolist(), law.accuracy(at).tolist(), is_baseline=True)
        for name, law in ((POWER, laws.power), (SATURATING, laws.saturating))
        if law is not None
    ]


def _figure_5_tokens(context: Context) -> int:
    pools = sum(curves.pool_tokens(context, pool) for pool in context.pools())
    num = context.bench.config.branches.num_branches + 2
    return num * (pools + common.pair_tokens(context, context.sets()[:1]))


def _seed_000_tokens(context: Context) -> int:
    num = context.bench.config.branches.num_branches + 2
    return num * len(context.options.sizes) * common.pair_tokens(context, context.sets())


STUDIES = (
    Study(
        "figure5",
        "Figure 5",
        "scaling in code pairs",
        "Does accuracy rise with the number of code pairs, and do returns diminish?",
        arms_of_figure_5,
        measure_figure_5,
        _figure_5_tokens,
    ),
    Study(
        "seed000",
        "HH-RLHF by code pairs",
        "returns of more code pairs on HH-RLHF",
        "Does growing CodePMP's preference set give diminishing returns in reward alignment on "
        "HH-RLHF?",
        arms_of_seed_000,
        measure_seed_000,
        _seed_000_tokens,
    ),
)
