"""Evidence: does PMP on code pairs help a reward model that sees few reasoning pairs?

One question, one primary comparison, one test. Arms differ in what they start from: the plain
model, PMP, and PMP with reversed labels, which saw the same texts in the same order. By seed they
are finetuned on the same pairs in the same order. What is measured of a seed is kept at once
(studies/kept.py), and all figures are made of what was kept (evidence_figures).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from codepmp_ray.config.base import fingerprint
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.studies import evidence_page, frozen, kept, measures, pair_rows
from codepmp_ray.studies.catalogue import common, curves, evidence_figures
from codepmp_ray.studies.catalogue.evidence_figures import CEILING, NONE, PMP, REVERSED
from codepmp_ray.studies.cost import training_records
from codepmp_ray.studies.example_solutions import is_from_worse
from codepmp_ray.studies.kept import Kept
from codepmp_ray.studies.outcome import Outcome
from codepmp_ray.studies.pair_rows import TestPairs
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.sets import problem_of, rows_digest
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm, Pairs, Training

_CONSTRUCTIONS = {PMP: pair_rows.STRONG_WEAK, REVERSED: pair_rows.REVERSED}
_CEILING_PAIRS, _CEILING_EPOCHS = 600, 3
_OF_RECORD = ("num_steps", "final_loss", "duration_s", "tokens_per_second")


def arms(context: Context) -> list[Arm]:
    """Of the seeds that are not kept; none where all are, or where the ceiling is too low."""
    known = read(context)
    if not (left := _left(context, known)):
        return []
    plans, num = context.bench.plans, context.bench.config.pmp_pairs
    name, model = _train_set(context), context.model
    train = _training_rows(context)
    if max(context.options.sizes, default=len(train) + 1) > len(train):
        raise ConfigError(
            f"studies.{context.name}.sizes are {context.options.sizes}, and {name} has "
            f"{len(train)} training pairs.",
            "Name sizes of the heads, none above that number.",
        )

    def start(label: str, seed: int) -> Training:
        sets = context.bench.code_sets
        return plans.pmp_on(seed, model, sets, num, _CONSTRUCTIONS[label])

    starts: dict[str, list[str | Training]] = {NONE: [model] * len(left)}
    starts |= {label: [start(label, seed) for seed in left] for label in _CONSTRUCTIONS}
    ceiling = None if known.common else _ceiling(context, left[0])
    made = [] if ceiling is None else [Arm(CEILING, (ceiling,))]
    for label in _CONSTRUCTIONS:
        made.append(Arm(_before(label), tuple(s for s in starts[label] if isinstance(s, Training))))
    for label, begin in starts.items():
        trained = (
            plans.rm(one, (name,), context.num_train(name), seed)
            for one, seed in zip(begin, left, strict=True)
        )
        made.append(Arm(label, tuple(trained)))
    return made


def keep(context: Context, seed: int, row: dict[str, Trained], book: ScoreBook) -> None:
    """Keep the ceiling run when it is there, and the seed when all of its models are.

    Raises InputError where the ceiling says that the model cannot learn the task.
    """
    folder, known = _folder(context), read(context)
    shared = {"settings": settings(context), "digests": _digests(context), "made": kept.made()}
    if not known.common and (CEILING in row or context.options.ceiling_set is None):
        kept.keep_common(folder, shared | _common(context, row.get(CEILING), book))
        evidence_figures.require_ceiling(read(context))
    finetuned = (NONE, *_CONSTRUCTIONS)
    if seed in known.seeds or not all(label in row for label in finetuned):
        return
    test, held_out = context.test_pairs(_train_set(context)), _held_out(context)
    pairs = Pairs((_train_set(context),), context.num_train(_train_set(context)), seed=seed)
    own = _as_test(context.bench.pairs.rows(pairs, context.model))
    records = training_records(context.bench)
    values = {
        "test": {label: _rewards(row[label], test, book) for label in finetuned},
        "own_pairs": {label: _accuracy(row[label], own, book) for label in finetuned},
        "code": {label: _rewards(row[_before(label)], held_out, book) for label in _CONSTRUCTIONS},
        "heads": _heads(context, seed, row, test),
        "trainings": {
            label: {"key": trained.key}
            | {name: records.get(trained.key, {}).get(name) for name in _OF_RECORD}
            for label, trained in row.items()
            if label != CEILING
        },
    }
    kept.keep_seed(folder, seed, shared | values)


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """Of what was kept alone: neither models nor sets are needed."""
    outcome = evidence_figures.outcome(context, read(context))
    outcome.differs = [common.model_difference(context)]
    return outcome


def read(context: Context) -> Kept:
    """What is kept. Raises what `kept.read_kept` raises."""
    return kept.read_kept(_folder(context), settings(context))


def settings(context: Context) -> dict[str, Any]:
    """All that decides the figures, as JSON values: what is registered."""
    config, options = context.bench.config, context.options
    names = (*config.code_pairs, options.train_set, options.ceiling_set)
    told = {
        "model": config.models[context.model].model_dump(exclude={"speed"}),
        "pmp": config.pmp.result_fields(),
        "pmp_pairs": config.pmp_pairs,
        "rm": config.rm.result_fields(),
        "scoring": config.scoring.result_fields(),
        "code_pairs": config.code_pairs,
        "sets": {name: config.sets[name].result_fields() for name in names if name},
        "confidence": config.confidence,
        "options": options.result_fields(),
    }
    return json.loads(json.dumps(told))


def _left(context: Context, known: Kept) -> list[int]:
    """Seeds to run: none where the ceiling says that they would show nothing."""
    if known.common and evidence_figures.is_too_low(known):
        return []
    return [seed for seed in context.seeds if seed not in known.seeds]


def _folder(context: Context) -> str:
    folder = context.options.keep_dir
    if folder is None:
        raise ConfigError(
            f"The study {context.name} keeps each seed as it is done, and no folder is named.",
            f"Set studies.{context.name}.keep_dir=FOLDER.",
        )
    return folder


def _train_set(context: Context) -> str:
    name = context.options.train_set
    if name is None:
        raise ConfigError(f"{context.name} needs a set.", f"Set studies.{context.name}.train_set.")
    return name


def _ceiling(context: Context, seed: int) -> Training | None:
    """The plain model on many pairs of the training questions, several times over; a pilot may do
    without."""
    name = context.options.ceiling_set
    if name is None:
        return None
    num = context.bench.pairs.num_available((name,), context.model, _CEILING_PAIRS)
    made = context.bench.plans.rm(context.model, (name,), num, seed)
    config = made.config.model_copy(update={"num_train_epochs": _CEILING_EPOCHS})
    return replace(made, config=config, label=f"ceiling: {made.label}")


def _common(context: Context, ceiling: Trained | None, book: ScoreBook) -> dict[str, Any]:
    name = _train_set(context)
    test = context.test_pairs(name)
    if len({*test.problems}) < len(test.problems) or not all("model_rates" in r for r in test.rows):
        raise InputError(
            f"{name} has several test pairs of a question, or pairs that name no writers.",
            f"Set sets.{name}.kind=example_solutions and balance=true.",
        )
    rules = curves.pair_rules(context, name)
    return {
        "problems": test.problems,
        "from_worse": [int(is_from_worse(row)) for row in test.rows],
        "num_too_long": test.num_too_long,
        "rules": {rule: shares.tolist() for rule, shares in rules.items()},
        "ceiling": None if ceiling is None else _rewards(ceiling, test, book),
    }


def _heads(
    context: Context, seed: int, row: dict[str, Trained], test: TestPairs
) -> dict[str, dict[str, list[float]]]:
    """By arm and size: of each test pair the share of heads that order it right."""
    bench, options = context.bench, context.options
    base = bench.config.models[context.model].before_training
    places = {NONE: (f"base-{fingerprint(base)}", bench.weights(context.model))}
    for label in _CONSTRUCTIONS:
        trained = row[_before(label)]
        places[label] = (trained.key, str(trained.folder))
    encoder = bench.pairs.encoder(context.model)
    found = {}
    for label, (key, weights) in places.items():
        train, tested = (
            frozen.gap_features(bench.store, key, weights, encoder, rows, context.bf16)
            for rows in (_training_rows(context), test.rows)
        )
        shares = frozen.head_shares(train, tested, options.sizes, options.num_draws, seed)
        found[label] = {str(size): np.round(v, 4).tolist() for size, v in shares.items()}
    return found


def _training_rows(context: Context) -> list[Row]:
    """All that there are."""
    name = _train_set(context)
    pairs = Pairs((name,), len(context.bench.set(name).train))
    return context.bench.pairs.rows(pairs, context.model)


def _held_out(context: Context) -> TestPairs:
    """Code pairs that PMP does not see; those of the first set."""
    name, *_ = context.bench.code_sets
    num = len(context.bench.set(name).test)
    return context.bench.pairs.test_pairs(name, num, context.model)


def _as_test(rows: list[Row]) -> TestPairs:
    return TestPairs(rows, [problem_of(row) for row in rows], 0, rows_digest(rows))


def _rewards(model: Trained, test: TestPairs, book: ScoreBook) -> dict[str, list[float]]:
    sides = zip(("chosen", "rejected"), book.pair_rewards(model, test), strict=True)
    return {side: [float(f"{reward:.6g}") for reward in rewards] for side, rewards in sides}


def _accuracy(model: Trained, test: TestPairs, book: ScoreBook) -> float:
    return float(measures.pair_shares(*book.pair_rewards(model, test), test.problems)[1].mean())


def _digests(context: Context) -> dict[str, str]:
    """Of all pairs, as they are trained and tested on."""
    bench, name = context.bench, _train_set(context)
    code = Pairs(bench.code_sets, bench.config.pmp_pairs, construction=pair_rows.STRONG_WEAK)
    return {
        "pmp pairs": rows_digest(bench.pairs.rows(code, context.model)),
        "held-out code pairs": _held_out(context).digest,
        "finetuning pairs": rows_digest(_training_rows(context)),
        "test pairs": context.test_pairs(name).digest,
    }


def _before(label: str) -> str:
    return f"{label}, before finetuning"


def _num_tokens(context: Context) -> int:
    """Three reward models and three frozen ones on the test pairs; checks come on top."""
    if not _left(context, read(context)):
        return 0
    return 7 * common.pair_tokens(context, [_train_set(context)])


EVIDENCE = Study(
    "evidence",
    "Evidence",
    "PMP against none with few reasoning pairs, registered",
    "Does pretraining on code pairs help a reward model that sees few reasoning pairs?",
    arms,
    measure,
    _num_tokens,
    keep=keep,
    page=lambda context, record, file: evidence_page.write(read(context), record, file),
)
