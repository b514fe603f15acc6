"""Tables 1, 6, 13 and Figure 7: accuracy of reward models on pairs, with and without PMP.

Reward models at hand are measured on the same pairs, in a table of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common, curves, given
from codepmp_ray.studies.outcome import Comparison, Outcome, Row, Table
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

PaperValues = Mapping[str, tuple[float, float]]
PaperModels = Mapping[str, PaperValues]  # by the paper's model
_SMALL, _LARGE = "Qwen2-1.5B", "Qwen2-7B"
_ARMS = (common.WITHOUT, common.WITH)


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
    for model in _models(context):
        for name in context.sets():
            row, found = _one(context, models, book, model, name, values)
            rows.append(row)
            comparisons += found
    table = Table(
        "Accuracy of the reward model on pairs",
        [*_ARMS, *curves.RULES, *(f"{arm} (7B)" for arm in _ARMS)],
        rows,
        f"{paper.SOURCE}, {source}",
    )
    tables, of_given = [table], []
    if context.options.rewards:
        at_hand, of_given = _at_hand(context, models, book)
        tables.append(at_hand)
    of_arms = [
        common.model_difference(context, *_models(context)),
        common.pmp_difference(context, *_models(context)),
        _sizes(context),
    ] if models else []  # fmt: skip
    return Outcome(
        tables=tables,
        comparisons=comparisons + of_given,
        stand_ins=common.set_stand_ins(context, context.sets()),
        differs=[
            *of_arms,
            *given.differences(context, bool(models)),
            *common.set_differences(context, context.sets()),
        ],
    )


def _at_hand(context: Context, models: Models, book: ScoreBook) -> tuple[Table, list[Comparison]]:
    """Reward models at hand on the pairs of the study's first model, against its arm with PMP."""
    model = _models(context)[0]
    rows, comparisons = [], []
    for name in context.sets():
        test, title = context.test_pairs(name, model), context.bench.set(name).title
        found = given.shares(context, book, test)
        trained = models.get(_tag(context, model, name) + common.WITH)
        arm = common.shares_of(book, trained, test) if trained else None
        rows.append((title, found))
        what = title if len(_models(context)) == 1 else f"{title}, {model}"
        comparisons += given.compare(context, what, found, arm)
    return given.table(context, rows), comparisons


def _tag(context: Context, model: str, name: str) -> str:
    """What labels of the arms that are measured on the set begin with."""
    return f"{model}, {context.options.train_set or name}, "


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
) -> tuple[Row, list[Comparison]]:
    """Powers and differences are those of the paper's smaller model, which is nearer to ours.

    Without arms there remain the rules and, where the set is the paper's, the paper's values.
    """
    test, config = context.test_pairs(name, model), context.bench.config.sets[name]
    trained = [models.get(_tag(context, model, name) + arm) for arm in _ARMS]
    pair = [common.shares_of(book, found, test) for found in trained if found]
    known, larger = (
        values.get(size, {}).get(config.paper_name or "") for size in (_SMALL, _LARGE)
    )  # fmt: skip
    title = context.bench.set(name).title
    label = f"{title}, {model}" if len(_models(context)) > 1 else title
    rules = curves.pair_rules(context, name, model)
    shown = (*(known or (None,) * 2), *(larger or (None,) * 2))
    none = [None] * len(curves.RULES)
    row = Row(
        label,
        [
            *([measures.interval(v, context.confidence) for v in pair] or [None, None]),
            *(
                measures.interval(rules[rule], context.confidence) if rule in rules else None
                for rule in curves.RULES
            ),
            None,
            None,
        ],
        [*shown[:2], *none, *shown[2:]],
    )
    if not pair:
        return row, []
    difference = known[1] - known[0] if known else None
    question = f"{label}: PMP against none"
    return row, [common.of_pmp(context, question, pair[1], pair[0], difference)]


def _num_tokens(context: Context) -> int:
    if not context.options.train_arms:
        return 0
    return sum(2 * common.pair_tokens(context, context.sets(), model) for model in _models(context))


def _reward_tokens(context: Context) -> int:
    return common.pair_tokens(context, context.sets(), _models(context)[0])


_QUESTION = "Does a reward model order pairs better when it was pretrained on code pairs?"
_TABLE_13 = {model: {"CodeUltraFeedback": pair} for model, pair in paper.TABLE_13.items()}
STUDIES = tuple(
    Study(
        name, place, title, question, arms, partial(measure, values=values, source=source),
        _num_tokens, _reward_tokens,
    )
    for name, place, title, question, values, source in (
        ("table1", "Table 1", "reward-model accuracy with and without PMP", _QUESTION,
         paper.TABLE_1, "Table 1, Qwen2-1.5B and 7B"),
        ("table1_smollm2", "Table 1, SmolLM2-135M", "the same with pretrained weights", _QUESTION,
         paper.TABLE_1, "Table 1, Qwen2-1.5B and 7B"),
        ("figure7", "Figure 7", "other backbones", "Does PMP help backbones of other families?",
         {}, "Figure 7"),
        ("table6", "Table 6", "RewardBench", "Does PMP help on RewardBench's sections?",
         paper.TABLE_6, "Table 6, Qwen2-1.5B and 7B"),
        ("table13", "Table 13", "CodeUltraFeedback", "Does PMP help on judgements of code?",
         _TABLE_13, "Table 13, Qwen2-1.5B and 7B"),
    )
)  # fmt: skip
