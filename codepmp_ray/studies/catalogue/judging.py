"""Section D.4.2: does a judge that reads both answers agree with the order of a pair?"""

from __future__ import annotations

from codepmp_ray.analysis.judge_agreement import OrderAgreement, order_agreement
from codepmp_ray.studies import judges, paper
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.catalogue.policies import base_weights
from codepmp_ray.studies.outcome import Outcome, Row, Table, Value, not_measured
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm

_ONE, _BOTH = "same verdict in both orders", "odds of both orders together"


def arms(context: Context) -> list[Arm]:
    """Nothing is trained; what is missing is said."""
    context.sets()
    return []


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    rows, places, judged = [], [], []
    weights, encoder = base_weights(context), context.bench.pairs.encoder(context.model)
    for name in context.sets():
        test, config = context.test_pairs(name), context.bench.config.sets[name]
        known = paper.JUDGE_AGREEMENT.get(config.paper_name or name)
        title = context.bench.set(name).title
        odds = judges.preference_odds(weights, encoder, test.rows)
        found = {
            _ONE: order_agreement(*judges.verdicts(odds)),
            _BOTH: order_agreement(judges.debiased(odds)),
        }
        rows += [Row(f"{title}, {how}", [_share(of)], [known]) for how, of in found.items()]
        judged.append(found[_ONE].can_judge)
        places.append(
            f"{title}: {found[_ONE].num_undecided} of {found[_ONE].num_pairs} verdicts turned with "
            f"the order of showing, and {100 * (found[_ONE].first_shown or 0.0):.0f} % are for the "
            "answer shown first"
        )
    if not any(judged):
        return not_measured(
            "resources",
            f"{context.model} cannot judge. {'; '.join(places)}.",
            f"Set studies.{context.name}.model to a language model that can.",
        )
    return Outcome(
        summary=f"{'; '.join(places)}.",
        tables=[
            Table(
                "Pairs with a verdict in which the judge agrees with the pair's order",
                ["agreement"],
                rows,
                f"{paper.SOURCE}, section D.4.2, judge GPT-4o",
            )
        ],
        stand_ins=common.set_stand_ins(context, context.sets()),
        differs=[
            f"The judge is {context.model} ({weights.rsplit('/', 1)[-1]}), a language model that "
            "names the better of two answers; the paper's is GPT-4o. A judge near 50 % with most "
            "verdicts turning says nothing about the pairs, only about itself.",
        ],
    )


def _share(found: OrderAgreement) -> Value | None:
    share = found.agreement
    return Value(share.mean, share.low, share.high) if share.mean == share.mean else None


def _num_tokens(context: Context) -> int:
    """Both answers are read in both orders."""
    pairs = context.bench.pairs
    return sum(
        4 * pairs.num_tokens(row, context.model)
        for name in context.sets()
        for row in context.test_pairs(name).rows
    )


JUDGE = Study(
    "judge",
    "Section D.4.2",
    "agreement of a judge with the order of pairs",
    "Does a judge find the chosen answer better?",
    arms,
    measure,
    _num_tokens,
)
