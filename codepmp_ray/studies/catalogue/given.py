"""Reward models at hand beside a study's own arms: their columns, comparisons and words."""

from __future__ import annotations

from codepmp_ray.studies import measures
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import Comparison, Table
from codepmp_ray.studies.pair_rows import TestPairs
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context

TITLE = "Reward models at hand"
Given = dict[str, Floats]  # label -> [problems]


def shares(
    context: Context,
    book: ScoreBook,
    test: TestPairs,
    rule: common.Shares = measures.pair_shares,
) -> Given:
    """Of every model that the study names."""
    return {
        item.label: common.shares_of(book, [item.model], test, rule)[0]
        for item in context.rewards()
    }


def compare(context: Context, what: str, given: Given, arm: Floats | None) -> list[Comparison]:
    """Each of `given` against `arm` [trainings, problems], the study's own models with PMP.

    Without an arm the first of them against each other one.
    """
    if arm is not None:
        found = [(f"{n}, at hand, against {common.WITH}", v, arm) for n, v in given.items()]
    else:
        first, *others = given or ("",)
        found = [(f"{first} against {n}, both at hand", given[first], given[n]) for n in others]
    return [
        measures.compare(f"{what}: {text}", one, other, context.confidence, about="at hand")
        for text, one, other in found
    ]


def table(context: Context, rows: list[tuple[str, Given]]) -> Table:
    """A row (label, values) for each set, a column for each model."""
    labels = [item.label for item in context.rewards()]
    return common.table(context, TITLE, labels, {n: [g[k] for k in labels] for n, g in rows})


def differences(context: Context, has_arms: bool) -> list[str]:
    """What the models are, and what a comparison with the study's own arms does not say."""
    models = context.rewards()
    if not models:
        return []
    told = [f"Reward model at hand {item.words}." for item in models]
    if not has_arms:
        because = "" if context.options.train_arms else " (train_arms=false)"
        return [
            *told,
            f"Nothing was trained here{because}: only models at hand were measured, and what PMP "
            "does was not.",
        ]
    return [
        *told,
        f"Models at hand were trained on other data than those {common.WITH}, which train here, "
        "and may be of another size: which is better says nothing about PMP. Whether they were "
        "trained on questions that are asked here is not known. Comparisons with a vote or with "
        "each other speak of other questions only, for of each there is one training.",
    ]
