"""Table 12: reward models against majority voting, both at the largest N of a pool."""

from __future__ import annotations

from functools import partial

from codepmp_ray.errors import InputError
from codepmp_ray.studies import measures, paper
from codepmp_ray.studies.catalogue import best_of_n, common, curves, given
from codepmp_ray.studies.outcome import Comparison, Outcome, Row, Table
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study

_ONE_TRAINING = "; of the model there is one training"


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    """The reward model with PMP, and each one at hand, against the vote on the same questions."""
    own = best_of_n.pool_set(context)
    rewards = context.rewards()
    if not models and not rewards:
        raise InputError(
            f"No pool of {context.name} names a set to finetune on.",
            "Set pools.NAME.test_of, or name reward models at hand in rewards.",
        )
    rows: list[Row] = []
    comparisons: list[Comparison] = []
    of_given: list[Comparison] = []
    for pool in context.pools():
        base = curves.baseline_curves(pool)
        if "majority" not in base:
            continue
        votes = base["majority"][:, :, -1]
        known = paper.TABLE_12.get(context.benchmark(pool) or "")
        trained = models.get(f"{own}, {common.WITH}")
        picked = curves.curve(book, trained, pool)[:, :, -1] if trained else None
        at_hand = [curves.curve(book, [item.model], pool)[:, :, -1] for item in rewards]
        cells = [
            None if found is None else measures.interval(found, context.confidence)
            for found in (picked, votes, *at_hand)
        ]
        of_paper = [*(known or (None, None)), *[None] * len(rewards)]
        rows.append(Row(f"{pool.origin}, N={pool.size[1]}", cells, of_paper))
        if picked is not None:
            comparisons.append(
                measures.compare(
                    f"{pool.name}: reward model with PMP against majority",
                    picked,
                    votes.repeat(len(picked), axis=0),
                    context.confidence,
                    known[0] - known[1] if known else None,
                )
            )
        of_given += [
            measures.compare_given(
                f"{pool.name}: {item.label}, at hand, against majority",
                found,
                votes,
                context.confidence,
                _ONE_TRAINING,
            )
            for item, found in zip(rewards, at_hand, strict=True)
        ]
    table = Table(
        "Reward model against majority voting",
        ["reward model with PMP", "majority", *(item.label for item in rewards)],
        rows,
        f"{paper.SOURCE}, Table 12",
    )
    of_arms = [common.model_difference(context), common.pmp_difference(context)] if models else []
    return Outcome(
        summary=given.conclude(context, comparisons, of_given),
        tables=[table],
        comparisons=comparisons + of_given,
        differs=[*of_arms, *given.differences(context, bool(models))],
    )


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
