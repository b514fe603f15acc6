"""Tables 1, 6, 13 and Figure 7: accuracy of reward models on pairs, with and without PMP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.outcome import Comparison, Outcome, Row, Table, Value
from codepmp_ray.studies.scores import ScoreBook, lengths_in_tokens
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

PaperValues = Mapping[str, tuple[float, float]]
PaperModels = Mapping[str, PaperValues]  # by the paper's model
_SMALL, _LARGE = "Qwen2-1.5B", "Qwen2-7B"


def _models(context: Context) -> tuple[str, ...]:
    return context.options.models or (context.model,)


def arms(context: Context) -> list[Arm]:
    """Of every model: finetuned on each set, or on `train_set` alone."""
    if context.options.train_set is not None:
        context.sets()  # what is missing is said before anything is trained
    return [
        arm
        for model in _models(context)
        for name in _trained_on(context)
        for arm in common.both_arms(
            context, (name,), context.num_train(name, model=model), f"{model}, {name}", model
        )
    ]


def _trained_on(context: Context) -> list[str]:
    train_set = context.options.train_set
    if train_set is None:
        return context.sets()
    context.bench.set(train_set)
    return [train_set]


def measure(
    context: Context, models: Models, book: ScoreBook, *, values: PaperModels, source: str
) -> Outcome:
    rows, comparisons = [], []
    arms = (common.WITHOUT, common.WITH)
    for model in _models(context):
        for name in context.sets():
            row, comparison = _one(context, models, book, model, name, values)
            rows.append(row)
            comparisons.append(comparison)
    table = Table(
        "Accuracy of the reward model on pairs",
        [*arms, "length alone", *(f"{arm} (7B)" for arm in arms)],
        rows,
        f"{paper.SOURCE}, {source}",
    )
    return Outcome(
        summary=common.conclude(comparisons),
        tables=[table],
        comparisons=comparisons,
        differs=[
            common.model_difference(context, *_models(context)),
            common.pmp_difference(context),
            _sizes(context),
            *common.set_differences(context, context.sets()),
        ],
    )


def _sizes(context: Context) -> str:
    found = (
        f"{context.num_train(name):,} of {context.bench.set(name).title}"
        for name in _trained_on(context)
    )
    return f"Finetuning pairs: {', '.join(found)}."


def _one(
    context: Context,
    models: Models,
    book: ScoreBook,
    model: str,
    name: str,
    values: PaperModels,
) -> tuple[Row, Comparison]:
    """Powers and differences are those of the paper's smaller model, which is nearer to ours."""
    test = context.test_pairs(name, model)
    tag = f"{model}, {context.options.train_set or name}, "
    without, with_pmp = (
        common.shares_of(book, models[tag + arm], test) for arm in (common.WITHOUT, common.WITH)
    )
    stands_for = context.bench.config.sets[name].stands_for or ""
    known, larger = (values.get(size, {}).get(stands_for) for size in (_SMALL, _LARGE))
    title = context.bench.set(name).title
    label = f"{title}, {model}" if len(_models(context)) > 1 else title
    encoder = context.bench.pairs.encoder(model)
    lengths = [
        lengths_in_tokens(encoder, [row[side] for row in test.rows])
        for side in ("chosen", "rejected")
    ]
    rule = measures.length_rule(*lengths)
    row = Row(
        label,
        [
            measures.interval(without, context.confidence),
            measures.interval(with_pmp, context.confidence),
            Value(rule["accuracy"], rule["low"], rule["high"]),
            None,
            None,
        ],
        [*(known or (None, None)), None, *(larger or (None, None))],
    )
    comparison = measures.compare(
        f"{label}: PMP against none",
        with_pmp,
        without,
        context.confidence,
        known[1] - known[0] if known else None,
    )
    return row, comparison


def _num_tokens(context: Context) -> int:
    return sum(2 * common.pair_tokens(context, context.sets(), model) for model in _models(context))


def _study(
    name: str, place: str, title: str, question: str, values: PaperModels, source: str
) -> Study:
    return Study(
        name,
        place,
        title,
        question,
        arms,
        partial(measure, values=values, source=source),
        _num_tokens,
    )


_QUESTION = "Does a reward model order pairs better when it was pretrained on code pairs?"
TABLE_1 = _study(
    "table1",
    "Table 1",
    "reward-model accuracy with and without PMP",
    _QUESTION,
    paper.TABLE_1,
    "Table 1, Qwen2-1.5B and 7B",
)
STUDIES = (
    TABLE_1,
    _study(
        "table1_smollm2",
        "Table 1, SmolLM2-135M",
        "the same with pretrained weights",
        _QUESTION,
        paper.TABLE_1,
        "Table 1, Qwen2-1.5B and 7B",
    ),
    _study(
        "figure7",
        "Figure 7",
        "other backbones",
        "Does PMP help backbones of other families?",
        {},
        "Figure 7",
    ),
    _study(
        "table6",
        "Table 6",
        "RewardBench",
        "Does PMP help on RewardBench's sections?",
        paper.TABLE_6,
        "Table 6, Qwen2-1.5B and 7B",
    ),
    _study(
        "table13",
        "Table 13",
        "CodeUltraFeedback",
        "Does PMP help on judgements of code?",
        {model: {"CodeUltraFeedback": pair} for model, pair in paper.TABLE_13.items()},
        "Table 13, Qwen2-1.5B and 7B",
    ),
)
