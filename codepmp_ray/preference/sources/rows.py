"""What builders take and give: rows of a set in, pairs or typed rejects out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, TypeVar

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.messages import BadMessage, Message, checked_messages, text_of
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

Row = dict[str, Any]
R = TypeVar("R")
W = TypeVar("W")


@dataclass(frozen=True)
class Reject:
    """A row, or an answer in it, that became no pair. `index` is the row's number, from 0."""

    index: int
    reason: RejectReason
    detail: str


# (number of the row in its set, row); or what is wrong with it before anyone looks inside.
Numbered = tuple[int, Row] | Reject
Built = Row | Reject
Builder = Callable[[Iterable[Numbered], DataSourceConfig], Iterator[Built]]


class Unusable(Exception):
    """Raised while a row is read; becomes its Reject."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def row_by_row(build: Callable[[Row, DataSourceConfig], list[Row]]) -> Builder:
    """A builder of a function that makes the pairs of one row, or raises Unusable."""

    def builder(rows: Iterable[Numbered], config: DataSourceConfig) -> Iterator[Built]:
        for item in rows:
            if isinstance(item, Reject):
                yield item
                continue
            index, row = item
            try:
                pairs = build(row, config)
            except Unusable as error:
                yield Reject(index, error.reason, error.detail)
            else:
                yield from pairs

    return builder


def text_cell(row: Row, name: str) -> str:
    """The text in a column; null counts as blank, which the encoder rejects by the column's name.

    Raises Unusable for anything else, and for text without a UTF-8 form.
    """
    value = row.get(name)
    return "" if value is None else checked_text(value, name)


def checked_text(value: Any, name: str) -> str:
    """`value`, if it is text. Raises Unusable."""
    try:
        return text_of(value, name)
    except BadMessage as error:
        raise Unusable(error.reason, error.problem) from error


def checked_conversation(value: list[Any], name: str) -> list[Message]:
    """`checked_messages`. Raises Unusable."""
    try:
        return checked_messages(value, name)
    except BadMessage as error:
        raise Unusable(error.reason, error.problem) from error


def make_pair(
    prompt: str | list[Message],
    chosen: str,
    rejected: str,
    config: DataSourceConfig,
    *,
    problem_id: str | None = None,
    source_id: str | None = None,
    pair_id: str | None = None,
    margin: float | None = None,
    contexts: tuple[list[Message], list[Message]] | None = None,
) -> Row:
    """A pair in the form that training reads: `messages` where the prompt is a conversation.

    `contexts` are the messages of either side between the prompt and its last answer.

    Without an origin the prompt is the origin, so that held-out pairs share no prompt with others.
    """
    messages = None if isinstance(prompt, str) else prompt
    identity = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
    before_chosen, before_rejected = contexts or ([], [])
    of_contexts = [json.dumps(contexts, sort_keys=True)] if before_chosen or before_rejected else []
    if config.prompt_format is not None:
        if messages is not None:
            raise Unusable(
                RejectReason.BAD_CONVERSATION, "prompt_format is for prompts of a single turn"
            )
        prompt = config.prompt_format.replace("{prompt}", identity)
    return {
        "pair_id": pair_id or stable_id(identity, *of_contexts, chosen, rejected),
        "problem_id": problem_id or (None if source_id else stable_id(identity)),
        "source_id": source_id,
        "prompt": None if messages is not None else prompt,
        "messages": messages,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_context": before_chosen or None,
        "rejected_context": before_rejected or None,
        "margin": margin,
    }


def of_one_answer(built: Built) -> Built:
    """`built`, for who compares two answers to one prompt; training alone reads longer sides."""
    if isinstance(built, Reject) or not (built["chosen_context"] or built["rejected_context"]):
        return built
    detail = f"pair {built['pair_id']}: a side has several messages, which only training reads"
    return Reject(-1, RejectReason.BAD_CONVERSATION, detail)


def pair_up(right: Sequence[R], wrong: Sequence[W], limit: int | None = None) -> list[tuple[R, W]]:
    """Right with wrong answers, all or `limit` pairs, each answer in as few as can be."""
    num = len(right) * len(wrong)
    period = lcm(len(right), len(wrong))  # of both sides going round beside each other
    return [
        (right[i % len(right)], wrong[(i + i // period) % len(wrong)])
        for i in range(num if limit is None else min(limit, num))
    ]
