"""TRL's preference format: `chosen` and `rejected` with a prompt, or with the prompt inside both.

Each may be text or a list of messages ({role, content}); a `system` column becomes the first
message. In the implicit form the prompt is what both sides begin with: whole messages of
conversations, of plain text everything up to the last white space before they differ.
"""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import (
    SHOWN_FIELDS,
    Message,
    Row,
    Unusable,
    checked_text,
    make_pair,
    row_by_row,
    text_cell,
)
from codepmp_ray.records import RejectReason

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
    if any(isinstance(row.get(name), list) for name in ("chosen", "rejected")):
        prompt, chosen, rejected = _conversation(row)
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


def as_messages(value: list[Any], name: str) -> list[Message]:
    """Checked {role, content} messages. Raises Unusable.

    So does whatever else a chat template would have shown: training, scoring and serving know a
    message as a role and a text, and without the rest it is another one. Nulls hold nothing.
    """
    messages = []
    for message in value:
        if isinstance(message, dict) and "role" in message:
            _require_plain(message, name)
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise Unusable(
                RejectReason.BAD_CONVERSATION, f"{name} has an entry without role and content"
            )
        role = checked_text(message["role"], f"{name}.role")
        content = _joined(message["content"], f"{name}.content")
        messages.append({"role": role, "content": content})
    return messages


def _require_plain(message: dict[str, Any], name: str) -> None:
    for field in sorted(SHOWN_FIELDS & message.keys()):
        if message[field]:
            raise Unusable(
                RejectReason.FIELD_NOT_SHOWN,
                f"{name} has a message with {field}, which would not be shown",
            )


def _joined(content: Any, name: str) -> str:
    """The text of a message, which may be a list of one text part, as in OpenAI's format."""
    if not isinstance(content, list):
        return checked_text(content, name)
    kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
    # Templates differ in what they put between parts, so that only one has a text of its own.
    if kinds != ["text"]:
        raise Unusable(
            RejectReason.FIELD_NOT_SHOWN, f"{name} has parts of type {kinds}, not one of text"
        )
    return checked_text(content[0].get("text"), f"{name}[0].text")


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


def _conversation(row: Row) -> tuple[str | list[Message], str, str]:
    sides = []
    for name in ("chosen", "rejected"):
        if not isinstance(row.get(name), list):
            raise Unusable(RejectReason.BAD_CONVERSATION, "only one side is a list of messages")
        sides.append(as_messages(row[name], name))
    chosen, rejected = sides
    if row.get("prompt") is not None:
        given = row["prompt"]
        explicit = (
            as_messages(given, "prompt")
            if isinstance(given, list)
            else [{"role": "user", "content": checked_text(given, "prompt")}]
        )
        # Some sets (UltraFeedback's) repeat the prompt at the head of both sides.
        if all(side[: len(explicit)] == explicit for side in sides):
            chosen, rejected = (side[len(explicit) :] for side in sides)
        prompt = explicit
    else:
        prompt = chosen[:-1]
        if rejected[:-1] != prompt or not prompt:
            raise Unusable(
                RejectReason.BAD_CONVERSATION, "the two sides differ before their last message"
            )
        chosen, rejected = chosen[-1:], rejected[-1:]
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if len(side) != 1 or side[0]["role"] != "assistant":
            raise Unusable(
                RejectReason.BAD_CONVERSATION,
                f"{name} is {len(side)} messages after the prompt, not one of the assistant",
            )
    return _prompt(prompt), chosen[0]["content"], rejected[0]["content"]


def _prompt(value: Any) -> str | list[Message]:
    if value is None:
        return ""
    if not isinstance(value, list):
        return checked_text(value, "prompt")
    messages = as_messages(value, "prompt")
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
