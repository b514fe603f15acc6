"""Section D.4.2: does a judge that reads both answers agree with the order of a pair?

The judge is a language model that sees the two answers as A and B and names one. Judges prefer a
place, small ones nearly always the same, so each pair is shown both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codepmp_ray.analysis.judge_agreement import (
    CHOSEN,
    REJECTED,
    TIE,
    OrderAgreement,
    order_agreement,
)
from codepmp_ray.preference.sources.rows import Row as PairRow
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.resampling import Floats
from codepmp_ray.studies import paper
from codepmp_ray.studies.catalogue import common
from codepmp_ray.studies.catalogue.policies import base_weights
from codepmp_ray.studies.outcome import Outcome, Row, Table, Value, not_measured
from codepmp_ray.studies.policies import next_token_logits
from codepmp_ray.studies.scores import ScoreBook
from codepmp_ray.studies.study import Context, Models, Study, no_arms

_ONE, _BOTH = "same verdict in both orders", "odds of both orders together"
_QUESTION = (
    "Below are a request and two answers to it.\n\nRequest:\n{prompt}\n\nAnswer A:\n{a}\n\n"
    "Answer B:\n{b}\n\nWhich answer is better, A or B? Reply with one letter."
)


def preference_odds(model: str | Path, encoder: Encoder, rows: Sequence[PairRow]) -> Floats:
    """Log-odds of "A" against "B" [pairs, 2]: with the chosen answer as A, and with it as B."""
    letters = [encoder.ids_of([letter])[0][0] for letter in ("A", "B")]
    questions = [_question(row, *sides) for sides in _ORDERS for row in rows]
    logits = next_token_logits(model, encoder, questions, letters)
    return (logits[:, 0] - logits[:, 1]).reshape(len(_ORDERS), len(rows)).T


def verdicts(odds: Floats) -> tuple[list[str], list[str]]:
    """By order of showing, as `order_agreement` takes them."""
    return _verdicts(odds[:, 0]), _verdicts(-odds[:, 1])


def debiased(odds: Floats) -> list[str]:
    """One verdict for each pair: a liking for a place, the same in both orders, cancels out."""
    return _verdicts(odds[:, 0] - odds[:, 1])


_ORDERS = (("chosen", "rejected"), ("rejected", "chosen"))


def _question(row: PairRow, first: str, second: str) -> str:
    turns = row["messages"]
    prompt = row["prompt"] if turns is None else "\n".join(m["content"] for m in turns)
    return _QUESTION.format(prompt=prompt, a=row[first], b=row[second])


def _verdicts(for_chosen: Floats) -> list[str]:
    return [
        TIE if odds == 0 else CHOSEN if odds > 0 else REJECTED for odds in np.asarray(for_chosen)
    ]


def measure(context: Context, models: Models, book: ScoreBook) -> Outcome:
    rows, places, judged = [], [], []
    weights, encoder = base_weights(context), context.bench.pairs.encoder(context.model)
    for name in context.sets():
        test, config = context.test_pairs(name), context.bench.config.sets[name]
        known = paper.JUDGE_AGREEMENT.get(config.paper_name or name)
        title = context.bench.set(name).title
        odds = preference_odds(weights, encoder, test.rows)
        found = {
            _ONE: order_agreement(*verdicts(odds)),
            _BOTH: order_agreement(debiased(odds)),
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
    no_arms,
    measure,
    _num_tokens,
)
