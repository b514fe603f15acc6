"""Figure 3 and Tables 3, 4, 5, 12 and 14: best-of-N with and without PMP, by generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common, curves
from codepmp_ray.studies.outcome import Outcome, Row, Table
from codepmp_ray.studies.pools import Generators, LabelledPool
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

PaperCurve = dict[int, tuple[float, float]]


def _pool_set(context: Context) -> str | None:
    """The set whose training part finetunes the models that pick from pools."""
    if context.options.train_set is not None:
        return context.options.train_set
    names = [context.bench.config.pools[name].test_of for name in context.options.pools or ()]
    return next((name for name in names if name is not None), None)


def arms(context: Context) -> list[Arm]:
    """Models for the pools, and one per multiple-choice set."""
    found: list[Arm] = []
    own = _pool_set(context)
    if own is not None:
        context.pools()  # what is missing is said before anything is trained
        found += common.both_arms(context, (own,), context.num_train(own), own)
    here = context.bench.sets_here(context.options.sets or ())[0]
    for name in here:
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
    outcome = Outcome(differs=common.differences(context, _choice_sets(context)))
    own = _pool_set(context)
    if own is not None:
        for pool in context.pools(generators):
            known = values.get(context.benchmark(pool) or "", {})
            _pool(context, models, book, outcome, pool, own, known, source)
            outcome.differs += common.pool_differences(context, pool, known)
            if generators != "all":
                outcome.differs.append(_in_place_of(generator, pool, generators))
    rows = []
    for name in _choice_sets(context):
        test = context.test_pairs(name)
        rule = measures.all_pairs_right
        pair = [
            common.shares_of(book, models[f"{name}, {arm}"], test, rule)
            for arm in (common.WITHOUT, common.WITH)
        ]
        stands_for = context.bench.config.sets[name].stands_for or name
        known = values.get(stands_for.removesuffix("-pair"), {}).get(4)
        title = context.bench.set(name).title
        rows.append(
            Row(
                title,
                [measures.interval(found, context.confidence) for found in pair],
                list(known) if known else [None, None],
            )
        )
        outcome.comparisons.append(
            measures.compare(
                f"{title}, best of its options",
                pair[1],
                pair[0],
                context.confidence,
                known[1] - known[0] if known else None,
            )
        )
    if rows:
        title = "Multiple choice: the right option has the highest reward"
        outcome.tables.append(Table(title, [common.WITHOUT, common.WITH], rows, source))
    outcome.summary = common.conclude(outcome.comparisons)
    return outcome


def _in_place_of(generator: str, pool: LabelledPool, generators: Generators) -> str:
    return (
        f"The paper has answers of {generator}, which is stronger than Table 3's generator, "
        f"MetaMath-Mistral-7B. These are of the {generators} half of a pool's models, by their "
        f"share of right answers, and {100 * pool.correct.mean():.1f} % of them are right: other "
        f"generators than Table 3's, but no stand-in for {generator}."
    )


def _pool(
    context: Context,
    models: Models,
    book: ScoreBook,
    outcome: Outcome,
    pool: LabelledPool,
    own: str,
    values: PaperCurve,
    source: str,
) -> None:
    """Plot, table and comparison of one pool, added to `outcome`."""
    points = curves.ks_of(pool)
    found = {
        arm: curves.curve(book, models[f"{own}, {arm}"], pool)
        for arm in (common.WITHOUT, common.WITH)
    }
    base = curves.baseline_curves(pool)
    outcome.plots.append(curves.plot(context, f"Best-of-N: {pool.origin}", found, base, points))
    every = {**found, **base}
    rows = []
    for k in sorted({*points, *values}):
        cells = [
            measures.interval(v[:, :, points.index(k)], context.confidence) if k in points else None
            for v in every.values()
        ]
        known = list(values.get(k, (None, None)))
        rows.append(Row(f"N={k}", cells, [*known, *[None] * len(base)]))
    outcome.tables.append(Table(f"Best-of-N: {pool.origin}", list(every), rows, source))
    outcome.differs.append(
        f"Answers: {pool.origin}; {pool.size[0]} questions with {pool.size[1]} answers each, "
        "whose generators differ: style may tell them apart."
    )
    if context.bench.config.pools[pool.config_name].test_of != own:
        outcome.differs.append(f"{pool.origin} is scored by models finetuned on {own}.")
    last = points[-1]
    known = values.get(last)
    outcome.comparisons.append(
        measures.compare(
            f"{pool.name}, best of {last}",
            found[common.WITH][:, :, -1],
            found[common.WITHOUT][:, :, -1],
            context.confidence,
            known[1] - known[0] if known else None,
        )
    )


def measure_majority(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """Table 12: the reward model with PMP against majority voting, both at the largest N."""
    own = _pool_set(context)
    rows, comparisons = [], []
    assert own is not None, "the recipe names a pool"
    for pool in context.pools():
        picked = curves.curve(book, models[f"{own}, {common.WITH}"], pool)[:, :, -1]
        base = curves.baseline_curves(pool)
        if "majority" not in base:
            continue
        votes = base["majority"][:, :, -1]
        known = paper.TABLE_12.get(context.benchmark(pool) or "")
        cells = [measures.interval(found, context.confidence) for found in (picked, votes)]
        rows.append(
            Row(f"{pool.origin}, N={pool.size[1]}", list(cells), list(known or (None, None)))
        )
        comparisons.append(
            measures.compare(
                f"{pool.name}: reward model with PMP against majority",
                picked,
                votes.repeat(len(picked), axis=0),
                context.confidence,
                known[0] - known[1] if known else None,
            )
        )
    table = Table(
        "Reward model against majority voting",
        ["reward model with PMP", "majority"],
        rows,
        f"{paper.SOURCE}, Table 12",
    )
    return Outcome(
        summary=common.conclude(comparisons),
        tables=[table],
        comparisons=comparisons,
        differs=[common.model_difference(context), common.pmp_difference(context)],
    )


def _num_tokens(context: Context, generators: Generators) -> int:
    pools = sum(curves.pool_tokens(context, pool) for pool in context.pools(generators))
    return 2 * (pools + common.pair_tokens(context, _choice_sets(context)))


def _study(
    name: str,
    place: str,
    title: str,
    generators: Generators,
    values: dict[str, PaperCurve],
    source: str,
    generator: str = "",
) -> Study:
    question = "Does a reward model with PMP pick better among N answers?"
    found: Callable[..., Outcome] = partial(
        measure,
        generators=generators,
        values=values,
        source=f"{paper.SOURCE}, {source}",
        generator=generator,
    )
    return Study(
        name, place, title, question, arms, found, partial(_num_tokens, generators=generators)
    )


STUDIES = (
    _study(
        "table3",
        "Figure 3, Table 3",
        "best-of-N curves",
        "all",
        paper.TABLE_3,
        "Table 3, reward model Qwen2-72B",
    ),
    _study(
        "table4",
        "Table 4",
        "best-of-N with other generators: a pool's weaker half for Qwen2-Math-7B-Instruct",
        "weaker",
        paper.TABLE_4,
        "Table 4, reward model Qwen2-7B, generator Qwen2-Math-7B-Instruct",
        "Qwen2-Math-7B-Instruct",
    ),
    _study(
        "table5",
        "Table 5",
        "best-of-N with other generators: a pool's stronger half for Qwen2.5-32B-Instruct",
        "stronger",
        paper.TABLE_5,
        "Table 5, reward model Qwen2-7B, generator Qwen2.5-32B-Instruct",
        "Qwen2.5-32B-Instruct",
    ),
    _study(
        "table14",
        "Table 14",
        "best-of-N on HumanEval",
        "all",
        {"HumanEval": paper.HUMANEVAL_BON},
        "Table 14, reward model Qwen2-7B, generator deepseek-coder-6.7b-instruct",
    ),
    Study(
        "table12",
        "Table 12",
        "reward model against majority voting",
        "Does the reward model pick better than a vote?",
        arms,
        measure_majority,
        partial(_num_tokens, generators="all"),
    ),
)
