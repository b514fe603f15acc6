"""Figure 6: which construction of pairs pretrains best, with equally many pairs of each.

Some are made of the rows of one set (`train_set`), and so ask the same prompts; others are sets of
their own (`constructions`), made by recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.preference.sources.rows import Row as PairRow
from codepmp_ray.studies import measures, pair_rows
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm, Pairs, Training

_KINDS = (
    pair_rows.STRONG_WEAK,
    pair_rows.SOURCE_WEAK,
    pair_rows.SOURCE_STRONG,
    pair_rows.REVERSED,
)
_NO_PMP = "no PMP"


@dataclass(frozen=True)
class Construction:
    """Attributes:
    set_name: where its rows are from.
    kind: what of a row is made a pair (`studies.constructions`); empty: the row as it is.
    num_pairs: that there are, up to a whole PMP run's.
    """

    label: str
    set_name: str
    kind: str
    num_pairs: int


def arms(context: Context) -> list[Arm]:
    """RMs finetuned alike on the first of the study's sets, after PMP of each construction."""
    name, *_ = context.sets()
    found = here(context)
    num, size = _num_pairs(found), context.num_train(name)

    def start(made: Construction):
        def of_seed(seed: int) -> Training:
            return context.bench.plans.pmp_on(seed, context.model, (made.set_name,), num, made.kind)

        return of_seed

    plain = common.rm_arm(context, _NO_PMP, lambda seed: context.model, (name,), size)
    return [plain, *(common.rm_arm(context, m.label, start(m), (name,), size) for m in found)]


def here(context: Context) -> list[Construction]:
    """The constructions of which there are pairs; strong & weak, which is always one, first.

    Raises ConfigError for a label that stands twice, MissingSet when `train_set` is not here.
    """
    pairs, own = _pairs_set(context), context.options.constructions
    for label in own:
        if label in (*_KINDS, _NO_PMP):
            raise ConfigError(
                f"studies.{context.name}.constructions has the label {label!r}, which the study "
                "itself uses.",
                "Give the set another label.",
            )
    found = [_made(context, kind, pairs, kind) for kind in _KINDS]
    sets, _ = context.bench.sets_here(tuple(own.values()))
    found += [_made(context, label, name, "") for label, name in own.items() if name in sets]
    if found[0] is None:
        raise InputError(f"The set {pairs!r} has no pair of a chosen and a rejected answer.")
    return [made for made in found if made is not None]


def _made(context: Context, label: str, set_name: str, kind: str) -> Construction | None:
    """None where no row has both sides of it."""
    bench = context.bench
    rows = bench.set(set_name).train
    if not any(pair_rows.construct(kind, row) for row in rows):
        return None
    most = min(len(rows), _most_pairs(context))
    num = bench.pairs.num_available((set_name,), context.model, most, kind)
    return Construction(label, set_name, kind, num)


def _most_pairs(context: Context) -> int:
    """A whole PMP run's, which no construction exceeds."""
    config = context.bench.config
    return config.models[context.model].pmp_pairs or config.pmp_pairs


def _num_pairs(found: list[Construction]) -> int:
    """Of every construction's PMP: what the smallest has."""
    return min(made.num_pairs for made in found)


def _pairs_set(context: Context) -> str:
    name = context.options.train_set
    if name is None:
        raise ConfigError(
            f"The study {context.name} needs a set of pairs.",
            f"Set studies.{context.name}.train_set.",
        )
    return name


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    names = context.sets()
    found: dict[str, list[Any]] = {
        label: [common.shares_of(book, trained, context.test_pairs(name)) for name in names]
        for label, trained in models.items()
    }
    best = {label: np.concatenate(values, axis=1) for label, values in found.items()}
    comparisons = [
        measures.compare(
            f"{pair_rows.STRONG_WEAK} against {label}",
            best[pair_rows.STRONG_WEAK],
            values,
            context.confidence,
            about="pmp" if label == _NO_PMP else "other",
        )
        for label, values in best.items()
        if label != pair_rows.STRONG_WEAK
    ]
    titles = [context.bench.set(name).title for name in names]
    made = here(context)
    values = found | common.rules(context, names)
    title = "Accuracy after PMP on each construction"
    return Outcome(
        stand_ins=common.set_stand_ins(context, names),
        tables=[common.table(context, title, titles, values)],
        comparisons=comparisons,
        facts={
            "paper": "best is 6.7B & 1.3B (strong & weak), and GitHub code beats web pages: Figure "
            "6, whose values are only drawn",
            "num_pairs": _num_pairs(made),
            "num_available": {m.label: m.num_pairs for m in made},
        },
        differs=[
            common.model_difference(context),
            *_differences(context, made),
            *common.set_differences(context, names),
        ],
    )


def _differences(context: Context, found: list[Construction]) -> list[str]:
    """How many pairs each construction has, which decided, and whose prompts are not the same."""
    bench, num = context.bench, _num_pairs(found)
    smallest = min(found, key=lambda made: made.num_pairs)
    base = bench.set(_pairs_set(context))
    decided = f"as many as {smallest.label} has" if num < _most_pairs(context) else "a whole run's"
    texts = [
        f"PMP on {num:,} pairs of every construction, {decided}; what rows have is made of "
        f"{base.title}."
    ]
    lacking = [kind for kind in _KINDS if kind not in {made.label for made in found}]
    if lacking:
        texts.append(f"Rows of {base.title} have no source_code for: {', '.join(lacking)}.")
    asked = _prompts(context, found[0], num)
    for made in found:
        if made.kind:
            continue
        own = _prompts(context, made, num)
        shared = len(own & asked)
        texts.append(
            f"{made.label}: {bench.set(made.set_name).title}, "
            + (
                f"on the same {len(own):,} prompts as {pair_rows.STRONG_WEAK}."
                if own == asked
                else f"{shared:,} of whose {len(own):,} prompts are among the {len(asked):,} of "
                f"{pair_rows.STRONG_WEAK}: they differ in prompts as well as in construction."
            )
        )
    return texts


def _prompts(context: Context, made: Construction, num: int) -> set[str]:
    pairs = Pairs((made.set_name,), num, construction=made.kind)
    return {_prompt(row) for row in context.bench.pairs.rows(pairs, context.model)}


def _prompt(row: PairRow) -> str:
    return str(row["messages"] or row["prompt"]).strip()


FIGURE_6 = Study(
    "figure6",
    "Figure 6",
    "constructions of pairs",
    "Which two answers should a pair be made of?",
    arms,
    measure,
    lambda context: (len(here(context)) + 1) * common.pair_tokens(context, context.sets()),
)
