"""What several studies share: the two arms, accuracies of their models, words about differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from codepmp_ray.config.study_materials import CORRUPTED
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.studies import measures
from codepmp_ray.studies.catalogue import curves
from codepmp_ray.studies.measures import Floats
from codepmp_ray.studies.outcome import Comparison, Outcome, Row, Table
from codepmp_ray.studies.pair_rows import TestPairs
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.study import Context
from codepmp_ray.studies.trainings import Arm, Training

WITHOUT, WITH = "without PMP", "with PMP"
PAPERS_MODELS = ("Qwen/Qwen2-1.5B", "Qwen/Qwen2-7B")
Shares = Callable[..., tuple[list[str], Floats]]
_MIN_HEADROOM = 0.1  # between a random pick and the oracle: with less no score shows anything


def rm_arm(
    context: Context,
    label: str,
    starts: Callable[[int], str | Training],
    sets: tuple[str, ...],
    num: int,
    *,
    x: float = 0.0,
    group: str = "",
) -> Arm:
    """Reward models finetuned on `num` pairs, one for each seed, from `starts(seed)`."""
    trained = (context.bench.plans.rm(starts(seed), sets, num, seed) for seed in context.seeds)
    return Arm(label, tuple(trained), x, group)


def both_arms(
    context: Context, sets: tuple[str, ...], num: int, tag: str = "", model: str | None = None
) -> list[Arm]:
    """Without and with PMP, else alike: same pairs, order and head by seed."""
    name = model or context.model
    prefix = f"{tag}, " if tag else ""
    return [
        rm_arm(context, prefix + WITHOUT, lambda seed: name, sets, num, x=num, group=WITHOUT),
        rm_arm(
            context,
            prefix + WITH,
            lambda seed: context.bench.plans.pmp(seed, name),
            sets,
            num,
            x=num,
            group=WITH,
        ),
    ]


def shares_of(
    book: ScoreBook,
    models: list[Trained],
    test: TestPairs,
    rule: Shares = measures.pair_shares,
) -> Floats:
    """[trainings, problems]: what `rule` makes of each model's rewards."""
    return np.array([rule(*book.pair_rewards(m, test), test.problems)[1] for m in models])


def pair_tokens(context: Context, sets: list[str], model: str | None = None) -> int:
    """Tokens that scoring the test parts of `sets` once takes."""
    name = model or context.model
    return sum(
        2 * context.bench.pairs.num_tokens(row, name)
        for set_name in sets
        for row in context.test_pairs(set_name, name).rows
    )


def model_difference(context: Context, *names: str) -> str:
    """One sentence about our models, where the paper has Qwen2-1.5B and 7B."""
    shapes = [context.bench.config.models[name] for name in names or (context.model,)]
    if all(shape.model_name_or_path in PAPERS_MODELS for shape in shapes):
        same = ", ".join(str(shape.model_name_or_path) for shape in shapes)
        return f"Models of the paper's: {same}."
    texts = []
    for name in names or (context.model,):
        shape = context.bench.config.models[name]
        if shape.model_name_or_path is not None:
            texts.append(f"{name}: {shape.model_name_or_path}")
        else:
            texts.append(
                f"{name}: a {shape.architecture} of random weights, {shape.num_hidden_layers} "
                f"layers of {shape.hidden_size}, warmed up as a language model on "
                f"{shape.warmup_pairs:,} functions"
            )
    return f"Models ({'; '.join(texts)}) instead of Qwen2-1.5B and Qwen2-7B."


def pmp_difference(context: Context, *names: str) -> str:
    """One sentence about the pairs that PMP saw, of the models `names`, else of the study's."""
    bench = context.bench
    titles = " and ".join(bench.set(name).title for name in bench.code_sets)
    models = {name: bench.config.models[name] for name in names or (context.model,)}
    nums = {name: model.pmp_pairs or bench.config.pmp_pairs for name, model in models.items()}
    text = " and ".join(dict.fromkeys(f"{num:,}" for num in nums.values()))
    if len(set(nums.values())) > 1:
        text = ", ".join(f"{num:,} ({name})" for name, num in nums.items())
    if any(bench.config.sets[name].kind in CORRUPTED for name in bench.code_sets):
        return (
            f'"PMP" is pretraining on {text} corrupted copies of functions ({titles}) here. These '
            "are no PMP pairs: those are answers of a strong and a weak model, 28 million in the "
            "paper."
        )
    return f"PMP on {text} pairs ({titles}) instead of 28 million of the paper's."


def set_differences(context: Context, names: list[str]) -> list[str]:
    """A sentence for each set that stands for another, or has no split of its own."""
    found = []
    for name in names:
        config, here = context.bench.config.sets[name], context.bench.set(name)
        text = f"{here.title} stands for {config.stands_for}. " if config.stands_for else ""
        if not here.has_own_split:
            share = f"{100 * config.test_fraction:.0f} %"
            text += f"{here.title} has one part here: {share} of its questions test."
        if text:
            found.append(text.strip())
    return found


def pool_differences(context: Context, pool: Pool, known: Mapping[Any, Any]) -> list[str]:
    """A sentence where the pool has no benchmark, or `known`, the paper's values, are none."""
    if known:
        return []
    benchmark = context.benchmark(pool)
    if benchmark is not None:
        return [f"The paper has no value for {benchmark} here, so none stands beside {pool.name}."]
    return [
        f"Which benchmark {pool.name} is of is not said (pools.{pool.setting}.stands_for), so "
        "no value of the paper stands beside it."
    ]


def differences(context: Context, names: list[str]) -> list[str]:
    """What differs from the paper wherever models with PMP are measured on the sets `names`."""
    models, pmp = model_difference(context), pmp_difference(context)
    return [models, pmp, *set_differences(context, names)]


def of_pmp(
    context: Context,
    question: str,
    with_pmp: Floats,
    without: Floats,
    paper_difference: float | None = None,
    told: str = "",
) -> Comparison:
    """With PMP minus without, over figures [trainings, problems]."""
    return measures.compare(
        question, with_pmp, without, context.confidence, paper_difference, "pmp", told
    )


def training_stand_ins(context: Context, arms: Sequence[Arm]) -> list[str]:
    """Backbones and pairs of the arms' trainings that are none of the paper's method."""
    config = context.bench.config
    steps = [step for arm in arms for made in arm.by_seed[:1] for step in made.chain()]
    found = [
        f"{name}: random weights of the architecture {config.models[name].architecture}, warmed up "
        "here, in place of a pretrained backbone."
        for name in dict.fromkeys(step.base for step in steps)
        if config.models[name].weights is None
    ]
    sets = (name for s in steps if s.config.objective != "sft" for name in s.pairs.sets)
    return found + [
        f"Training on {context.bench.set(name).title}, one wrong edit each, in place of pairs of "
        "answers."
        for name in dict.fromkeys(sets)
        if config.sets[name].kind in CORRUPTED
    ]


def set_stand_ins(context: Context, names: list[str]) -> list[str]:
    """A sentence for each of the sets that stands for one of the paper's."""
    sets = {name: context.bench.config.sets[name] for name in names}
    return [
        f"{context.bench.set(name).title} in place of {config.stands_for}."
        for name, config in sets.items()
        if config.stands_for is not None
    ]


def pool_stand_ins(pool: Pool) -> list[str]:
    """A pool of many models asks which model wrote an answer, and not which of one's is right."""
    if len(pool.models) < 2:
        return []
    return [
        f"{pool.name}: answers of {len(pool.models)} models to each question, in place of many "
        "of one generator. Whoever knows good models picks well."
    ]


def table(
    context: Context,
    title: str,
    columns: list[str],
    values: Mapping[str, Sequence[Floats | None]],
) -> Table:
    """Shares with their intervals, a row for each label; the paper has no value beside them."""
    none: list[float | None] = [None] * len(columns)
    rows = [
        Row(label, [None if v is None else measures.interval(v, context.confidence) for v in cells],
            none)
        for label, cells in values.items()
    ]  # fmt: skip
    return Table(title, columns, rows)


def rules(context: Context, names: list[str]) -> dict[str, list[Floats | None]]:
    """What rules without any reward model reach on the test pairs of the sets, by rule and set."""
    found = [curves.pair_rules(context, name) for name in names]
    return {
        f"rule: {rule}": [of_set.get(rule) for of_set in found]
        for rule in curves.RULES
        if any(rule in of_set for of_set in found)
    }


def set_outcome(context: Context, names: list[str]) -> Outcome:
    """The outcome of a study of the sets `names`, as far as it is what they are."""
    return Outcome(differs=differences(context, names), stand_ins=set_stand_ins(context, names))


def add_pool(outcome: Outcome, pool: Pool) -> bool:
    """What the pool is, added to `outcome`; False where it has no headroom: it measures nothing."""
    outcome.stand_ins += pool_stand_ins(pool)
    random, oracle = float(pool.correct.mean()), float(pool.correct.max(axis=1).mean())
    if oracle - random >= _MIN_HEADROOM:
        return True
    outcome.notes.append(
        f"{pool.name} measures nothing: a random pick is right in {100 * random:.1f} % and the "
        f"best possible one in {100 * oracle:.1f} %, which leaves no room for a reward model. "
        "Nothing is compared there."
    )
    return False
