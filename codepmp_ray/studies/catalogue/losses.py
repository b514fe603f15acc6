"""Table 2: which loss PMP needs: the pairwise one, the language model's, or their sum."""

from __future__ import annotations

from collections.abc import Mapping

from codepmp_ray.evaluation.pools import Pool
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import common, curves
from codepmp_ray.studies.outcome import Comparison, Outcome, Row, Table
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

Known = Mapping[str, tuple[float, ...]]
_LOSSES = {"RM only": "rm", "LM only": "lm", "RM + LM": "pmp"}


def arms(context: Context) -> list[Arm]:
    sets = tuple(context.sets())
    return [
        common.rm_arm(
            context,
            label,
            lambda seed, objective=objective: context.bench.plans.pmp(
                seed, context.model, objective
            ),
            sets[:1],
            context.num_train(*sets[:1]),
        )
        for label, objective in _LOSSES.items()
    ]


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    name = context.sets()[0]
    test = context.test_pairs(name)
    by_loss = {label: common.shares_of(book, models[label], test) for label in _LOSSES}
    outcome = common.set_outcome(context, [name])
    title = f"Accuracy on pairs of {context.bench.set(name).title}"
    values = {label: [found] for label, found in by_loss.items()}
    rules = common.rules(context, [name])
    outcome.tables = [common.table(context, title, ["accuracy"], values | rules)]
    outcome.comparisons = [
        measures.compare(
            f"RM + LM against {label}, pairs", by_loss["RM + LM"], found, context.confidence
        )
        for label, found in by_loss.items()
        if label != "RM + LM"
    ]
    for pool in context.pools():
        found = {label: curves.curve(book, models[label], pool) for label in _LOSSES}
        known = paper.TABLE_2.get(context.benchmark(pool) or "", {})
        has_headroom = common.add_pool(outcome, pool)
        outcome.tables.append(_table(context, found, pool, known))
        outcome.differs += common.pool_differences(context, pool, known)
        outcome.plots.append(
            curves.plot(
                context,
                "Best-of-N by PMP loss",
                found,
                curves.baseline_curves(pool),
                curves.ks_of(pool),
            )
        )
        if has_headroom:
            outcome.comparisons += _compare(context, found, pool, known)
    return outcome


def _table(context: Context, found: curves.Curves, pool: Pool, known: Known) -> Table:
    """`known` are the paper's values by loss on the pool's own benchmark, empty without any."""
    ks = curves.ks_of(pool)
    at = {k: i for i, k in enumerate(paper.TABLE_2_KS)} if known else {}
    shown = sorted({*ks, *at} - {1})
    rows = [
        Row(
            label,
            [
                measures.interval(values[:, :, ks.index(k)], context.confidence)
                if k in ks
                else None
                for k in shown
            ],
            [known[label][at[k]] if k in at else None for k in shown],
        )
        for label, values in found.items()
    ]
    source = f"{paper.SOURCE}, Table 2, {context.benchmark(pool)}" if known else ""
    return Table(f"Best-of-N on {pool.name}", [f"N={k}" for k in shown], rows, source)


def _compare(
    context: Context,
    found: curves.Curves,
    pool: Pool,
    known: Known,
) -> list[Comparison]:
    return [
        measures.compare(
            f"RM + LM against {label}, best of {pool.size[1]} on {pool.name}",
            found["RM + LM"][:, :, -1],
            values[:, :, -1],
            context.confidence,
            known["RM + LM"][-1] - known[label][-1] if known else None,
        )
        for label, values in found.items()
        if label != "RM + LM"
    ]


def _num_tokens(context: Context) -> int:
    pairs = common.pair_tokens(context, context.sets()[:1])
    return len(_LOSSES) * (pairs + sum(curves.pool_tokens(context, p) for p in context.pools()))


TABLE_2 = Study(
    "table2",
    "Table 2",
    "loss ablation",
    "Is the sum of both losses better than either of them?",
    arms,
    measure,
    _num_tokens,
)
