"""Figure 3 and Tables 3, 4, 5, 12 and 14: best-of-N with and without PMP, by generator; the vote.

Reward models at hand pick from the same pools: a further curve and column each. Table 12 holds the
reward models against majority voting, both at the largest N of a pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common, curves, given
from codepmp_ray.studies.outcome import Comparison, Outcome, Row, Table
from codepmp_ray.studies.pools import Generators
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

PaperCurve = dict[int, tuple[float, float]]
_ARMS = (common.WITHOUT, common.WITH)
_RULES = ("model prior", "style", "random")


def pool_set(context: Context) -> str | None:
    """The set whose training part finetunes the models that pick from pools."""
    if context.options.train_set is not None:
        return context.options.train_set
    names = [context.bench.config.pools[name].test_of for name in context.options.pools or ()]
    return next((name for name in names if name is not None), None)


def arms(context: Context) -> list[Arm]:
    """Models for the pools, and one per multiple-choice set."""
    found: list[Arm] = []
    own = pool_set(context)
    if own is not None:
        context.pools()  # what is missing is said before anything is trained
        found += common.both_arms(context, (own,), context.num_train(own), own)
    for name in _choice_sets(context):
        found += common.both_arms(context, (name,), context.num_train(name), name)
    return found


def _choice_sets(context: Context) -> list[str]:
    return context.bench.sets_here(context.options.sets or ())[0]


def measure(
    context: Context,
    models: Models,
    book: ScoreBook,
    *,
    generators: Generators,
    values: dict[str, PaperCurve],
    source: str,
    generator: str,
) -> Outcome:
    """`generator` is the paper's, where the pool's answers are those of half of its models."""
    choices = _choice_sets(context)
    of_arms = common.differences(context, choices) if models else []
    outcome = Outcome(differs=of_arms or common.set_differences(context, choices))
    outcome.differs += given.differences(context, bool(models))
    outcome.stand_ins += common.set_stand_ins(context, choices)
    own = pool_set(context)
    if own is not None or context.options.rewards:
        for pool in context.pools(generators):
            known = values.get(context.benchmark(pool) or "", {})
            _pool(context, models, book, outcome, pool, own, known, source)
            outcome.differs += common.pool_differences(context, pool, known)
            if generators != "all" and len(pool.models) > 1:
                outcome.stand_ins.append(_in_place_of(generator, pool, generators))
    rows = []
    for name in choices:
        test = context.test_pairs(name)
        rule = measures.all_pairs_right
        found: given.Given = {
            arm: common.shares_of(book, models[f"{name}, {arm}"], test, rule)
            for arm in (_ARMS if models else ())
        }
        at_hand = given.shares(context, book, test, rule)
        config = context.bench.config.sets[name]
        known = values.get((config.paper_name or name).removesuffix("-pair"), {}).get(4)
        title = context.bench.set(name).title
        rows.append(_row(context, title, found | at_hand, list(known or ()), list(at_hand)))
        what = f"{title}, best of its options"
        outcome.comparisons += _of_pmp(context, what, found, known)
        outcome.comparisons += given.compare(context, what, at_hand, found.get(common.WITH))
    if rows:
        title = "Multiple choice: the right option has the highest reward"
        labels = [*_ARMS, *(item.label for item in context.rewards())]
        outcome.tables.append(Table(title, labels, rows, source))
    if not outcome.tables:
        context.sets()  # it says what is missing
    return outcome


def _row(
    context: Context,
    label: str,
    values: given.Given,
    known: list[float],
    others: Iterable[str] = (),
) -> Row:
    """The arms, if they were trained, then `others`; `known` are the paper's values of the arms."""
    columns = (*_ARMS, *others)
    cells = [
        measures.interval(values[name], context.confidence) if name in values else None
        for name in columns
    ]
    return Row(label, cells, [*known, *[None] * (len(columns) - len(known))])


def _of_pmp(
    context: Context,
    question: str,
    found: given.Given,
    known: tuple[float, float] | None,
) -> list[Comparison]:
    """With PMP against without, beside the paper's difference; none where neither was trained."""
    if not found:
        return []
    difference = known[1] - known[0] if known else None
    with_pmp, without = found[common.WITH], found[common.WITHOUT]
    return [common.of_pmp(context, question, with_pmp, without, difference)]


def _in_place_of(generator: str, pool: Pool, generators: Generators) -> str:
    return (
        f"The paper has answers of {generator}, which is stronger than Table 3's generator, "
        f"MetaMath-Mistral-7B. These are of the {generators} half of a pool's models, by their "
        f"share of right answers, and {100 * pool.correct.mean():.1f} % of them are right: other "
        f"generators than Table 3's, none of which is {generator}."
    )


def _pool(
    context: Context,
    models: Models,
    book: ScoreBook,
    outcome: Outcome,
    pool: Pool,
    own: str | None,
    values: PaperCurve,
    source: str,
) -> None:
    """Plot, table and comparisons of one pool, added to `outcome`."""
    has_headroom = common.add_pool(outcome, pool)
    points = curves.ks_of(pool)
    found = {
        arm: curves.curve(book, models[f"{own}, {arm}"], pool)
        for arm in (_ARMS if models and own is not None else ())
    }
    at_hand = {r.label: curves.curve(book, [r.model], pool)[0] for r in context.rewards()}
    base = curves.baseline_curves(pool)
    of_models = found | at_hand
    outcome.plots.append(curves.plot(context, f"Best-of-N: {pool.origin}", of_models, base, points))
    others = [*at_hand, *base]
    rows = []
    for k in sorted({*points, *values}):
        at_k = {}
        if k in points:
            at_k = {n: v[..., points.index(k)] for n, v in (of_models | base).items()}
        rows.append(_row(context, f"N={k}", at_k, list(values.get(k, ())), others))
    outcome.tables.append(Table(f"Best-of-N: {pool.origin}", [*_ARMS, *others], rows, source))
    config = context.bench.config.pools[pool.setting]
    outcome.differs.append(
        f"Answers: {pool.origin}; {pool.size[0]} questions with {pool.size[1]} answers each."
    )
    if found and config.test_of != own:
        outcome.differs.append(f"{pool.origin} is scored by models finetuned on {own}.")
    if not has_headroom:
        return
    last, what = points[-1], f"{pool.name}, best of {points[-1]}"
    of_last = {label: values_at[..., -1] for label, values_at in of_models.items()}
    of_arms = {label: of_last[label] for label in found}
    outcome.comparisons += _of_pmp(context, what, of_arms, values.get(last))
    of_given = {label: of_last[label] for label in at_hand}
    outcome.comparisons += given.compare(context, what, of_given, of_arms.get(common.WITH))


def reward_tokens(context: Context, generators: Generators) -> int:
    """About how many tokens scoring everything once takes."""
    pools = sum(curves.pool_tokens(context, pool) for pool in context.pools(generators))
    return pools + common.pair_tokens(context, _choice_sets(context))


def num_tokens(context: Context, generators: Generators) -> int:
    """Likewise of both arms of one seed."""
    return 2 * reward_tokens(context, generators) if context.options.train_arms else 0


_ROWS: tuple[tuple[str, str, str, Generators, dict[str, PaperCurve], str, str], ...] = (
    ("table3", "Figure 3, Table 3", "best-of-N curves", "all", paper.TABLE_3,
     "Table 3, reward model Qwen2-72B", ""),
    ("table4", "Table 4",
     "best-of-N with other generators: a pool's weaker half for Qwen2-Math-7B-Instruct", "weaker",
     paper.TABLE_4, "Table 4, reward model Qwen2-7B, generator Qwen2-Math-7B-Instruct",
     "Qwen2-Math-7B-Instruct"),
    ("table5", "Table 5",
     "best-of-N with other generators: a pool's stronger half for Qwen2.5-32B-Instruct", "stronger",
     paper.TABLE_5, "Table 5, reward model Qwen2-7B, generator Qwen2.5-32B-Instruct",
     "Qwen2.5-32B-Instruct"),
    ("table14", "Table 14", "best-of-N on HumanEval", "all", {"HumanEval": paper.HUMANEVAL_BON},
     "Table 14, reward model Qwen2-7B, generator deepseek-coder-6.7b-instruct", ""),
)  # fmt: skip
STUDIES = tuple(
    Study(
        name, place, title, "Does a reward model with PMP pick better among N answers?", arms,
        partial(measure, generators=generators, values=values, generator=generator,
                source=f"{paper.SOURCE}, {source}"),
        partial(num_tokens, generators=generators), partial(reward_tokens, generators=generators),
    )
    for name, place, title, generators, values, source, generator in _ROWS
)  # fmt: skip


def measure_votes(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """The reward model with PMP, and each one at hand, against the vote on the same questions."""
    own = pool_set(context)
    rewards = context.rewards()
    if not models and not rewards:
        raise InputError(
            f"No pool of {context.name} names a set to finetune on.",
            "Set pools.NAME.test_of, or name reward models at hand in rewards.",
        )
    outcome, rows = Outcome(), []
    for pool in context.pools():
        base = curves.baseline_curves(pool)
        if "majority" not in base:
            continue
        has_headroom = common.add_pool(outcome, pool)
        votes = base["majority"][:, -1]
        known = paper.TABLE_12.get(context.benchmark(pool) or "")
        trained = models.get(f"{own}, {common.WITH}")
        picked = curves.curve(book, trained, pool)[:, :, -1] if trained else None
        at_hand = [curves.curve(book, [item.model], pool)[0, :, -1] for item in rewards]
        others = [base[rule][:, -1] if rule in base else None for rule in _RULES]
        cells = [
            None if found is None else measures.interval(found, context.confidence)
            for found in (picked, votes, *at_hand, *others)
        ]
        rows.append(Row(f"{pool.origin}, N={pool.size[1]}", cells,
                        [*(known or (None, None)), *[None] * (len(cells) - 2)]))  # fmt: skip
        if not has_headroom:
            continue
        if picked is not None:
            outcome.comparisons.append(
                measures.compare(
                    f"{pool.name}: reward model with PMP against majority",
                    picked,
                    votes,
                    context.confidence,
                    known[0] - known[1] if known else None,
                )
            )
        outcome.comparisons += [
            measures.compare(
                f"{pool.name}: {item.label}, at hand, against majority",
                found,
                votes,
                context.confidence,
                about="at hand",
            )
            for item, found in zip(rewards, at_hand, strict=True)
        ]
    columns = [
        "reward model with PMP", "majority", *(item.label for item in rewards),
        *(f"rule: {rule}" for rule in _RULES),
    ]  # fmt: skip
    source = f"{paper.SOURCE}, Table 12"
    outcome.tables = [Table("Reward model against majority voting", columns, rows, source)]
    of_arms = [common.model_difference(context), common.pmp_difference(context)] if models else []
    outcome.differs = [*of_arms, *given.differences(context, bool(models))]
    return outcome


TABLE_12 = Study(
    "table12",
    "Table 12",
    "reward model against majority voting",
    "Does the reward model pick better than a vote?",
    arms,
    measure_votes,
    partial(num_tokens, generators="all"),
    partial(reward_tokens, generators="all"),
)
