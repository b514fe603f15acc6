"""Table 12: reward models against majority voting, both at the largest N of a pool."""

from __future__ import annotations

from functools import partial

from codepmp_ray.errors import InputError
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import best_of_n, common, curves, given
from codepmp_ray.studies.outcome import Outcome, Row, Table
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study

_RULES = ("model prior", "style", "random")


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """The reward model with PMP, and each one at hand, against the vote on the same questions."""
    own = best_of_n.pool_set(context)
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
    best_of_n.arms,
    measure,
    partial(best_of_n.num_tokens, generators="all"),
    partial(best_of_n.reward_tokens, generators="all"),
)
