"""Preference rows -> encoded pairs, with an explicit and counted rule for what does not fit."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal

from codepmp_ray.errors import InputError
from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import RejectReason, stable_id


def row_id(row: dict[str, Any]) -> str:
    """The row's pair_id, or one derived from its texts."""
    return row.get("pair_id") or stable_id(row["prompt"], row["chosen"], row["rejected"])


Encoded = EncodedPair | tuple[RejectReason, str]


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

    The prompt is `prompt`, or the list `messages` where a row has one. `max_length` bounds prompt +
    one response. With `truncate` a response that is too long is cut right and loses its EOS, so
    that it does not look finished; a prompt that alone leaves no room is rejected under either
    rule. Sides that are equal, or equal once they are cut, cannot be told apart and are rejected;
    so are a margin that is not a finite number, for it would make the whole step's loss one, and
    tokens that the model has no embedding for.

    Raises InputError for messages with a plain template.
    """
    texts = [_texts(row, encoder) for row in rows]
    wanted = [text for found in texts if isinstance(found, list) for text in found]
    ids = iter(encoder.ids_of(wanted) if wanted else [])
    return [
        _assemble(row, next(ids), next(ids), next(ids), encoder, max_length, overflow)
        if isinstance(found, list)
        else found
        for row, found in zip(rows, texts, strict=True)
    ]


def _texts(row: dict[str, Any], encoder: Encoder) -> list[str] | tuple[RejectReason, str]:
    """Rendered prompt, chosen, rejected."""
    messages = row.get("messages")
    if refused := _blank(row, _SIDES if messages else ("prompt", *_SIDES)):
        return refused
    margin = row.get("margin")
    margin = 0.0 if margin is None else margin
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not isfinite(margin):
        return RejectReason.BAD_MARGIN, f"margin is {margin!r}, not a finite number"
    try:
        prompt = encoder.render_prompt(messages or row["prompt"])
    except InputError as error:
        if encoder.template.chat_template is None:
            raise
        return RejectReason.PROMPT_NOT_RENDERED, str(error)
    return [prompt, row["chosen"], row["rejected"]]


def _assemble(
    row: dict[str, Any],
    prompt: list[int],
    chosen_ids: list[int],
    rejected_ids: list[int],
    encoder: Encoder,
    max_length: int,
    overflow: Literal["reject", "truncate"],
) -> Encoded:
    if unknown := encoder.unknown_token(prompt, chosen_ids, rejected_ids):
        return RejectReason.UNKNOWN_TOKEN, unknown
    room = max_length - len(prompt)
    if room < 1:
        return RejectReason.OVER_MAX_LENGTH, f"the prompt has {len(prompt)} of {max_length} tokens"
    limit = room if overflow == "truncate" else None
    chosen, rejected = (encoder.end_response(ids, limit) for ids in (chosen_ids, rejected_ids))
    longest = len(prompt) + max(len(chosen.ids), len(rejected.ids))
    if longest > max_length:
        return RejectReason.OVER_MAX_LENGTH, f"{longest} tokens exceed max_length={max_length}"
    truncated = chosen.truncated or rejected.truncated
    if chosen.ids == rejected.ids:
        return RejectReason.SIDES_EQUAL, "equal once they are cut" if truncated else "equal tokens"
    margin = float(row.get("margin") or 0.0)
    return EncodedPair(row_id(row), prompt, chosen.ids, rejected.ids, margin, truncated=truncated)


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
