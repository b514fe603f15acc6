"""Figure 6: which construction of pairs pretrains best, on the same prompts."""

from __future__ import annotations

import numpy as np

from codepmp_ray.studies import constructions, measures
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.outcome import Outcome, Row, Table
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

_KINDS = (
    constructions.STRONG_WEAK,
    constructions.SOURCE_WEAK,
    constructions.SOURCE_STRONG,
    constructions.REVERSED,
)
_NO_PMP = "no PMP"


def _pairs_set(context: Context) -> str:
    name = context.options.train_set
    assert name is not None, "the recipe names the set of pairs as train_set"
    return name


def arms(context: Context) -> list[Arm]:
    """RMs finetuned alike on the first of the study's sets, after PMP of each construction."""
    pairs, (name, *_) = _pairs_set(context), context.sets()
    context.bench.set(pairs)
    every = len(context.bench.set(pairs).train)
    num = context.bench.pairs.num_available((pairs,), context.model, every)
    size = context.num_train(name)

    def start(kind: str):
        return lambda seed: context.bench.plans.pmp_on(seed, context.model, (pairs,), num, kind)

    found = [common.rm_arm(context, _NO_PMP, lambda seed: context.model, (name,), size)]
    return found + [common.rm_arm(context, kind, start(kind), (name,), size) for kind in _KINDS]


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    names = context.sets()
    found = {
        label: [common.shares_of(book, trained, context.test_pairs(name)) for name in names]
        for label, trained in models.items()
    }
    rows = [
        Row(
            label,
            [measures.interval(v, context.confidence) for v in values],
            [None] * len(names),
        )
        for label, values in found.items()
    ]
    best = {label: np.concatenate(values, axis=1) for label, values in found.items()}
    comparisons = [
        measures.compare(
            f"{constructions.STRONG_WEAK} against {label}",
            best[constructions.STRONG_WEAK],
            values,
            context.confidence,
        )
        for label, values in best.items()
        if label != constructions.STRONG_WEAK
    ]
    titles = [context.bench.set(name).title for name in names]
    pairs = context.bench.set(_pairs_set(context))
    return Outcome(
        summary=common.conclude(comparisons),
        tables=[Table("Accuracy after PMP on each construction", titles, rows)],
        comparisons=comparisons,
        facts={
            "paper": "best is 6.7B & 1.3B (strong & weak), and GitHub code beats web pages: Figure "
            "6, whose values are only drawn"
        },
        differs=[
            common.model_difference(context),
            f"PMP on {len(pairs.train)} pairs: {pairs.title}. Description clipping and web pages "
            "need answers or pages that this set does not hold; recipes make them.",
            *common.set_differences(context, names),
        ],
    )


FIGURE_6 = Study(
    "figure6",
    "Figure 6",
    "constructions of pairs",
    "Which two answers should a pair be made of?",
    arms,
    measure,
    lambda context: (len(_KINDS) + 1) * common.pair_tokens(context, context.sets()),
)
