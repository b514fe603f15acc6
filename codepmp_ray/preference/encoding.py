"""Preference rows -> items of one pair, with an explicit and counted rule for what does not fit."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal

from codepmp_ray.errors import InputError
from codepmp_ray.preference import tokenization
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason


def row_id(row: dict[str, Any]) -> str:
    """The row's pair_id, or one derived from its texts."""
    return row.get("pair_id") or stable_id(row["prompt"], row["chosen"], row["rejected"])


Request = tuple[str, list[str]]
Encoded = EncodedItem | tuple[RejectReason, str]


def encode_pair(
    row: dict[str, Any],
    encoder: Encoder,
    max_length: int,
    overflow: Literal["reject", "truncate"],
) -> Encoded:
    """`encode_pairs` for one row."""
    return encode_pairs([row], encoder, max_length, overflow)[0]


def encode_pairs(
    rows: list[dict[str, Any]],
    encoder: Encoder,
    max_length: int,
    overflow: Literal["reject", "truncate"],
) -> list[Encoded]:
    """Ids of TRL-format rows, or why one cannot be used; all texts are tokenised in one call.

    The prompt is `prompt`, or the list `messages` where a row has one. Where the sides of a
    conversation part before its last turn, `chosen_context` and `rejected_context` are the messages
    between the prompt and the last answer; they count as part of that side. `max_length` bounds
    prompt + one response. With `truncate` a response that is too long is cut right and loses its
    EOS, so that it does not look finished; a prompt that alone leaves no room is rejected under
    either rule. Sides that are equal, or equal once they are cut, cannot be told apart and are
    rejected; so are a margin that is not a finite number, for it would make the whole step's loss
    one, and tokens that the model has no embedding for.

    Raises InputError for messages with a plain template.
    """
    rendered = [_rendered(row, encoder) for row in rows]
    wanted = [request for found in rendered if isinstance(found, list) for request in found]
    encoded = iter(encoder.encode_rendered(wanted))
    return [
        _assemble(row, [next(encoded) for _ in found], encoder, max_length, overflow)
        if isinstance(found, list)
        else found
        for row, found in zip(rows, rendered, strict=True)
    ]


def _rendered(row: dict[str, Any], encoder: Encoder) -> list[Request] | tuple[RejectReason, str]:
    """The prompt with both sides; of a conversation that parts earlier three requests: the prompt,
    and each side with what leads to it.
    """
    messages = row.get("messages")
    if refused := _blank(row, _SIDES if messages else ("prompt", *_SIDES)):
        return refused
    margin = row.get("margin")
    margin = 0.0 if margin is None else margin
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not isfinite(margin):
        return RejectReason.BAD_MARGIN, f"margin is {margin!r}, not a finite number"
    try:
        prompt = encoder.render(messages or row["prompt"])
        contexts = [row.get(f"{side}_context") or [] for side in _SIDES]
        if any(contexts):
            begun = [encoder.render([*(messages or []), *context]) for context in contexts]
            sides = [(text, [row[side]]) for text, side in zip(begun, _SIDES, strict=True)]
            return [(prompt, []), *sides]
    except InputError as error:
        if encoder.template.chat_template is None:
            raise
        return RejectReason.PROMPT_NOT_RENDERED, str(error)
    return [(prompt, [row["chosen"], row["rejected"]])]


def _assemble(
    row: dict[str, Any],
    requests: list[tokenization.Encoded],
    encoder: Encoder,
    max_length: int,
    overflow: Literal["reject", "truncate"],
) -> Encoded:
    sequences = [ids for request in requests for ids in request.sequences]
    whole = tokenization.Encoded(requests[0].prompt, sequences)
    if unknown := encoder.unknown_token(whole.prompt, *sequences):
        return RejectReason.UNKNOWN_TOKEN, unknown
    num_begun = max(len(request.prompt) for request in requests)
    if num_begun >= max_length:
        return RejectReason.OVER_MAX_LENGTH, f"the prompt has {num_begun} of {max_length} tokens"
    longest = max(map(len, sequences))
    if longest > max_length and overflow == "reject":
        return RejectReason.OVER_MAX_LENGTH, f"{longest} tokens exceed max_length={max_length}"
    prompt, (chosen, rejected) = whole.split(max_length)
    if len(requests) > 1 and len(prompt) < len(whole.prompt) - _most_merged(encoder):
        return (
            RejectReason.PROMPT_NOT_RENDERED,
            f"the sides share {len(prompt)} of the prompt's {len(whole.prompt)} tokens: the chat "
            "template shows earlier turns in another way once more turns follow",
        )
    truncated = chosen.truncated or rejected.truncated
    if chosen.ids == rejected.ids:
        return RejectReason.SIDES_EQUAL, "equal once they are cut" if truncated else "equal tokens"
    margin = float(row.get("margin") or 0.0)
    return EncodedItem.of_pair(
        row_id(row), prompt, chosen.ids, rejected.ids, margin, truncated=truncated
    )


def _most_merged(encoder: Encoder) -> int:
    """Tokens of a prompt that its sides need not share: a prompt that ends with an assistant's turn
    is rendered as if another one began, and white space may form tokens with what follows.
    """
    return len(encoder.ids_of([encoder.template.suffix])[0]) + 8


_SIDES = ("chosen", "rejected")
_BLANK = {
    "prompt": RejectReason.PROMPT_EMPTY,
    "chosen": RejectReason.CHOSEN_EMPTY,
    "rejected": RejectReason.REJECTED_EMPTY,
}


def _blank(row: dict[str, Any], names: tuple[str, ...]) -> tuple[RejectReason, str] | None:
    for name in names:
        if not isinstance(row.get(name), str) or not row[name].strip():
            return _BLANK[name], f"{name} is missing or blank"
    return None
