"""A language model as a judge of pairs: which of two answers, shown as A and B, does it name?

Judges prefer a place, small ones nearly always the same, so each pair is shown both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codepmp_ray.analysis.judge_agreement import CHOSEN, REJECTED, TIE
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.resampling import Floats
from codepmp_ray.studies.policies import next_token_logits

_QUESTION = (
    "Below are a request and two answers to it.\n\nRequest:\n{prompt}\n\nAnswer A:\n{a}\n\n"
    "Answer B:\n{b}\n\nWhich answer is better, A or B? Reply with one letter."
)


def preference_odds(model: str | Path, encoder: Encoder, rows: Sequence[Row]) -> Floats:
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


def _question(row: Row, first: str, second: str) -> str:
    turns = row["messages"]
    prompt = row["prompt"] if turns is None else "\n".join(m["content"] for m in turns)
    return _QUESTION.format(prompt=prompt, a=row[first], b=row[second])


def _verdicts(for_chosen: Floats) -> list[str]:
    return [
        TIE if odds == 0 else CHOSEN if odds > 0 else REJECTED for odds in np.asarray(for_chosen)
    ]
