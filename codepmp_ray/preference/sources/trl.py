"""TRL's preference format: `chosen` and `rejected` with a prompt, or with the prompt inside both.

Each may be text or a list of messages; a `system` column becomes the first message. In the
implicit form the prompt is what both sides begin with: whole messages of conversations, of plain
text everything up to the last white space before they differ. A side of a conversation may have
several messages after the prompt; its last one, the assistant's, is the answer.
"""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.messages import Message
from codepmp_ray.preference.sources.rows import (
    Row,
    Unusable,
    checked_conversation,
    checked_text,
    make_pair,
    row_by_row,
    text_cell,
)
from codepmp_ray.reject_reasons import RejectReason

COLUMNS = ({"chosen", "rejected"},)
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
)


def build_row(row: Row, config: DataSourceConfig) -> list[Row]:
    """The pair of one row."""
    for name in ("tools", "chat_template_kwargs"):
        if row.get(name):
            raise Unusable(
                RejectReason.FIELD_NOT_SHOWN, f"{name} would be in no prompt: it is not rendered"
            )
    contexts = None
    prompt: str | list[Message]
    if any(isinstance(row.get(name), list) for name in ("chosen", "rejected")):
        messages, (on_chosen, on_rejected) = _conversation(row)
        chosen, rejected = on_chosen[-1]["content"], on_rejected[-1]["content"]
        contexts = (on_chosen[:-1], on_rejected[:-1])
        prompt = messages if any(contexts) else simplest(messages)
    else:
        chosen, rejected = text_cell(row, "chosen"), text_cell(row, "rejected")
        if row.get("prompt") is None and "prompt" not in row:
            prompt, chosen, rejected = shared_prefix(chosen, rejected)
        else:
            prompt = _prompt(row["prompt"])
    if system := text_cell(row, "system"):
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        prompt = [{"role": "system", "content": system}, *turns]
    pair = make_pair(
        prompt,
        chosen,
        rejected,
        config,
        problem_id=_id(row, "problem_id"),
        source_id=_id(row, "source_id"),
        pair_id=_id(row, "pair_id"),
        margin=margin_of(row, config),
        contexts=contexts,
    )
    return [pair]


build = row_by_row(build_row)


def margin_of(row: Row, config: DataSourceConfig) -> float | None:
    """The row's `margin`, else, if wanted, the difference of its scores. Raises Unusable.

    Whether the number is finite is looked at when the pair is encoded.
    """
    if row.get("margin") is not None:
        return _number(row["margin"], "margin")
    if config.scores_as_margin:
        for better, worse in _SCORES:
            if row.get(better) is not None and row.get(worse) is not None:
                return _number(row[better], better) - _number(row[worse], worse)
    return None


def simplest(messages: list[Message]) -> str | list[Message]:
    """A lone user message is a prompt of plain text; other conversations stay messages."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return messages


def shared_prefix(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of two texts that begin with the prompt. Raises Unusable."""
    length = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        length += 1
    while length and not chosen[length - 1].isspace():
        length -= 1
    prompt = chosen[:length].rstrip()
    if not prompt:
        raise Unusable(RejectReason.BAD_CONVERSATION, "the two sides share no prompt")
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _conversation(row: Row) -> tuple[list[Message], list[list[Message]]]:
    """(what both sides begin with, what follows on either). Raises Unusable."""
    sides = []
    for name in ("chosen", "rejected"):
        if not isinstance(row.get(name), list):
            raise Unusable(RejectReason.BAD_CONVERSATION, "only one side is a list of messages")
        sides.append(checked_conversation(row[name], name))
    if row.get("prompt") is not None:
        given = row["prompt"]
        prompt = (
            checked_conversation(given, "prompt")
            if isinstance(given, list)
            else [{"role": "user", "content": checked_text(given, "prompt")}]
        )
        # Some sets (UltraFeedback's) repeat the prompt at the head of both sides.
        if all(side[: len(prompt)] == prompt for side in sides):
            sides = [side[len(prompt) :] for side in sides]
    else:
        # The last message of a side is its answer, whatever both have in common.
        most = min(map(len, sides)) - 1
        num = next((i for i in range(most) if sides[0][i] != sides[1][i]), most)
        if num < 1:
            raise Unusable(RejectReason.BAD_CONVERSATION, "the two sides share no prompt")
        prompt, sides = sides[0][:num], [side[num:] for side in sides]
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        _require_answered(name, prompt, side)
    return prompt, sides


def _require_answered(name: str, prompt: list[Message], side: list[Message]) -> None:
    if not side or side[-1]["role"] != "assistant":
        raise Unusable(
            RejectReason.BAD_CONVERSATION,
            f"{name} has {len(side)} messages after the prompt and does not end with the "
            "assistant's",
        )
    if extra := sorted(side[-1].keys() - {"role", "content"}):
        raise Unusable(
            RejectReason.FIELD_NOT_SHOWN,
            f"{name} ends with a message that has {extra[0]}: a reward is read after its text",
        )
    if [*prompt, *side][-2]["role"] == "assistant":
        raise Unusable(
            RejectReason.BAD_CONVERSATION, f"{name} has two turns of the assistant at its end"
        )


def _prompt(value: Any) -> str | list[Message]:
    if value is None:
        return ""
    if not isinstance(value, list):
        return checked_text(value, "prompt")
    messages = checked_conversation(value, "prompt")
    if messages and messages[-1]["role"] == "assistant":
        raise Unusable(RejectReason.BAD_CONVERSATION, "the prompt ends with the assistant's turn")
    return simplest(messages)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(RejectReason.BAD_MARGIN, f"{name} is {type(value).__name__}, not a number")
    return float(value)


def _id(row: Row, name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) and value else None
