"""Preference rows -> encoded pairs, with an explicit and counted rule for what does not fit."""

from __future__ import annotations

from typing import Any, Literal

from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import RejectReason, stable_id


def row_id(row: dict[str, Any]) -> str:
    """The row's pair_id, or one derived from its texts."""
    return row.get("pair_id") or stable_id(row["prompt"], row["chosen"], row["rejected"])


def encode_pair(
    row: dict[str, Any],
    encoder: Encoder,
    max_length: int,
    overflow: Literal["reject", "truncate"],
) -> EncodedPair | tuple[RejectReason, str]:
    """Ids of one TRL-format row, or why it cannot be used.

    `max_length` bounds prompt + one response. With `truncate` a response that is too long is cut
    right and loses its EOS, so that it does not look finished; a prompt that alone leaves no room
    is rejected under either rule.
    """
    for name in ("prompt", "chosen", "rejected"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            reason = {
                "prompt": RejectReason.PROMPT_EMPTY,
                "chosen": RejectReason.CHOSEN_EMPTY,
                "rejected": RejectReason.REJECTED_EMPTY,
            }[name]
            return reason, f"{name} is missing or blank"
    prompt = encoder.prompt_ids(row["prompt"])
    room = max_length - len(prompt)
    if room < 1:
        return RejectReason.OVER_MAX_LENGTH, f"the prompt has {len(prompt)} of {max_length} tokens"
    limit = room if overflow == "truncate" else None
    chosen = encoder.response(row["chosen"], limit).ids
    rejected = encoder.response(row["rejected"], limit).ids
    longest = len(prompt) + max(len(chosen), len(rejected))
    if longest > max_length:
        return RejectReason.OVER_MAX_LENGTH, f"{longest} tokens exceed max_length={max_length}"
    margin = row.get("margin")
    return EncodedPair(
        row_id(row), prompt, chosen, rejected, float(margin) if margin is not None else 0.0
    )
