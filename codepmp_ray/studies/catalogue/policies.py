"""Reward model, SFT, DPO and RFT on HH-RLHF, by the protocol that the question quotes.

Base, SFT, DPO and SFT+DPO answer prompts of the test parts greedily, with few tokens, and a reward
model scores them. RFT is SFT on the best of the base's own sampled answers by that reward model.
On the test pairs, DPO's implicit reward, beta (log p - log p_reference), stands beside reward
models with and without PMP.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from codepmp_ray.hub_models import pin
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.sources.rows import Row as PairRow
from codepmp_ray.studies import measures, policies
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.external_scorer import (
    available_scorer,
    external_rewards,
    scorer_name,
)
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import About, Outcome, Row, Table, Value
from codepmp_ray.studies.policies import how_filtered, test_prompts
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm, Training

BASE, SFT, DPO, BOTH, RFT = "base", "SFT", "DPO", "SFT + DPO", "RFT"
_DEFAULT_PROMPTS, _DEFAULT_TOKENS = 50, 50  # the protocol's
_SAMPLED = 5  # a token that is sampled takes the time of so many that are read


def arms(context: Context) -> list[Arm]:
    """The policies and the two reward models, all on the same pairs, of all sets or `train_set`."""
    if context.options.scorer:
        context.bench.require_scorer(context.options.scorer)  # not after hours of training
    sets = _trained_on(context)
    num = context.num_train(*sets)
    bench, model = context.bench, context.model

    def policy(label: str, start: Callable[[int], str | Training], objective: str) -> Arm:
        trained = (
            bench.plans.policy(start(seed), sets, num, seed, objective) for seed in context.seeds
        )
        return Arm(label, tuple(trained))

    def sft(seed: int) -> Training:
        return bench.plans.policy(model, sets, num, seed, "sft")

    def rft(seed: int) -> Training:
        judge = bench.plans.rm(bench.plans.pmp(seed, model), sets, num, seed)
        limit = context.options.max_new_tokens or _DEFAULT_TOKENS
        asked = min(num, context.options.num_rft_prompts or num)
        return bench.plans.rejection_sampled(model, judge, sets, asked, seed, limit)

    return [
        *common.both_arms(context, sets, num, "RM"),
        policy(SFT, lambda _: model, "sft"),
        policy(DPO, lambda _: model, "dpo"),
        policy(BOTH, sft, "dpo"),
        Arm(RFT, tuple(map(rft, context.seeds))),
    ]


def _trained_on(context: Context) -> tuple[str, ...]:
    tested = tuple(context.sets())  # raises what is missing
    train_set = context.options.train_set
    return (train_set,) if train_set else tested


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    outcome = Outcome(
        differs=[
            *_model_difference(context),
            _training_difference(context),
            *common.differences(context, context.sets()),
        ]
    )
    _pairs(context, models, book, outcome)
    _answers(context, models, book, outcome)
    return outcome


def _model_difference(context: Context) -> list[str]:
    weights = context.bench.config.models[context.model].model_name_or_path or ""
    if weights.rstrip("/").lower().endswith("opt-350m"):
        return []
    return [f"Policies and reward models from {context.model}, OPT-350M being the protocol's."]


def _training_difference(context: Context) -> str:
    names = _trained_on(context)
    titles = " and ".join(context.bench.set(name).title for name in names)
    num = context.num_train(*names)
    sampled = context.options.num_rft_prompts
    rft = f", RFT on {sampled:,} of their prompts" if sampled and sampled < num else ""
    return f"Trained on {num:,} pairs ({titles}){rft}; the protocol's set has about 160,000."


def _pairs(context: Context, models: Models, book: ScoreBook, outcome: Outcome) -> None:
    """Accuracy on test pairs of explicit and implicit rewards."""
    names = context.sets()
    tests = [context.test_pairs(name) for name in names]
    found: dict[str, list[Any]] = {
        f"RM {arm}": [common.shares_of(book, models[f"RM, {arm}"], test) for test in tests]
        for arm in (common.WITH, common.WITHOUT)
    }
    book.close()
    references: dict[str, list[str | Path]] = {
        DPO: [base_weights(context)] * len(models[DPO]),
        BOTH: [trained.folder for trained in models[SFT]],
    }
    for label, reference in references.items():
        found[f"{label}, implicit reward"] = [
            np.array(
                [
                    measures.pair_shares(*_implicit(context, m, before, test.rows), test.problems)[
                        1
                    ]
                    for m, before in zip(models[label], reference, strict=True)
                ]
            )
            for test in tests
        ]
    titles = [context.bench.set(name).title for name in names]
    values = found | common.rules(context, names)
    outcome.tables.append(common.table(context, "Accuracy on test pairs", titles, values))
    first = np.concatenate(found[f"RM {common.WITH}"], axis=1)
    for label, values in found.items():
        if label != f"RM {common.WITH}":
            second = np.concatenate(values, axis=1)
            question = f"RM {common.WITH} against {label}, pairs"
            about: About = "pmp" if label == f"RM {common.WITHOUT}" else "other"
            outcome.comparisons.append(
                measures.compare(question, first, second, context.confidence, about=about)
            )


def _implicit(
    context: Context, model: Trained, reference: str | Path, rows: list[PairRow]
) -> tuple[Floats, Floats]:
    encoder = context.bench.pairs.encoder(context.model)
    prompts = [row["messages"] or row["prompt"] for row in rows]
    sides = [[row[side] for row in rows] for side in ("chosen", "rejected")]
    policy, before = (
        policies.pair_log_likelihoods(folder, encoder, prompts, *sides)
        for folder in (model.folder, reference)
    )
    implicit = context.bench.config.dpo.dpo_beta * (policy - before)
    return implicit[:, 0], implicit[:, 1]


def _answers(context: Context, models: Models, book: ScoreBook, outcome: Outcome) -> None:
    """Rewards of greedy answers, and how often they beat the base model's."""
    options, encoder = context.options, context.bench.pairs.encoder(context.model)
    num = options.num_prompts or _DEFAULT_PROMPTS
    limit = options.max_new_tokens or _DEFAULT_TOKENS
    groups = {name: test_prompts(context, name, num) for name in context.sets()}
    prompts = [prompt for group in groups.values() for prompt in group]

    def greedy(folder: str | Path) -> list[str]:
        made = policies.answers(folder, encoder, prompts, limit, bf16=context.bf16)
        return [texts[0] for texts in made]

    texts = {
        label: [greedy(folder) for folder in folders]
        for label, folders in _folders(context, models).items()
    }
    judges = models[f"RM, {common.WITH}"]
    external = available_scorer(options.scorer)
    rewards = {
        label: np.array(
            [_score(context, book, judge, external, prompts, made) for judge, made in
             zip(judges, by_seed, strict=True)]
        )
        for label, by_seed in texts.items()
    }  # fmt: skip
    bounds = np.cumsum([0, *(len(group) for group in groups.values())])
    rows = [
        Row(
            label,
            [Value(float(v[:, a:b].mean())) for a, b in pairwise(bounds)],
            [None] * len(groups),
        )
        for label, v in rewards.items()
    ]
    titles = [context.bench.set(name).title for name in groups]
    judge = scorer_name(external) if external else f"our reward model {common.WITH}"
    outcome.tables.append(
        Table(f"Mean reward of greedy answers, by {judge}", titles, rows, unit="number")
    )
    half = np.full_like(rewards[BASE], 0.5)
    for label in (SFT, DPO, BOTH, RFT):
        gaps = rewards[label] - rewards[BASE]
        wins = (gaps > 0) + (gaps == 0) / 2
        question = f"{label}: share of prompts won against base, over one half"
        outcome.comparisons.append(measures.compare(question, wins, half, context.confidence))
    outcome.differs += [how_filtered(context, name, num) for name in groups]
    outcome.differs.append(
        f"{len(prompts)} prompts of the test parts, greedy, at most {limit} new tokens; "
        f"scored by {judge}"
        + ("." if external else f" in place of {options.scorer or 'an independent scorer'}: it saw "
           "training pairs of the same sets as the policies, and is no independent judge.")
    )  # fmt: skip


def _score(
    context: Context,
    book: ScoreBook,
    judge: Trained,
    external: str | None,
    prompts: list[policies.Prompt],
    texts: list[str],
) -> Floats:
    if external is None:
        return book.rewards(judge, prompts, texts)
    shown = [p if isinstance(p, str) else "\n".join(m["content"] for m in p) for p in prompts]
    return external_rewards(pin(context.bench.config.run_dir, external), shown, texts)


def _folders(context: Context, models: Models) -> dict[str, list[str | Path]]:
    found: dict[str, list[str | Path]] = {BASE: [base_weights(context)] * len(models[SFT])}
    for label in (SFT, DPO, BOTH, RFT):
        found[label] = [model.folder for model in models[label]]
    return found


def base_weights(context: Context) -> str:
    """Where the weights of the study's model lie."""
    weights = context.bench.config.models[context.model].weights
    assert weights is not None, "the recipe names a model with weights"
    return resolve_model(pin(context.bench.config.run_dir, weights))


def _num_tokens(context: Context) -> int:
    """Two reward models; DPO with and without SFT, each beside its reference; five's answers."""
    num = context.options.num_prompts or _DEFAULT_PROMPTS
    limit = context.options.max_new_tokens or _DEFAULT_TOKENS
    prompts = [p for name in context.sets() for p in test_prompts(context, name, num)]
    encoder = context.bench.pairs.encoder(context.model)
    answered = sum(len(encoder.prompt_ids(p)) + _SAMPLED * limit for p in prompts)
    return 6 * common.pair_tokens(context, context.sets()) + 5 * answered


SEED_004 = Study(
    "seed004",
    "HH-RLHF by method",
    "CodePMP's reward model beside SFT, DPO and RFT",
    "How does CodePMP's reward model compare with DPO on helpfulness and harmlessness?",
    arms,
    measure,
    _num_tokens,
)
