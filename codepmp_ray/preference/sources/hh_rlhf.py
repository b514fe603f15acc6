"""HH-RLHF (Bai et al. 2022): two transcripts that differ in the assistant's last turn.

A row is two texts of "\\n\\nHuman: ...\\n\\nAssistant: ..." turns, or, as TRL publishes the set,
lists of messages. Transcripts are split at their last assistant turn.
"""

from __future__ import annotations

import re

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources import trl
from codepmp_ray.preference.sources.rows import (
    Message,
    Row,
    Unusable,
    make_pair,
    row_by_row,
    text_cell,
)
from codepmp_ray.reject_reasons import RejectReason

COLUMNS = ({"chosen", "rejected"},)
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def build_row(row: Row, config: DataSourceConfig) -> list[Row]:
    if isinstance(row.get("chosen"), list):
        return trl.build_row(row, config)
    (before, chosen), (before_rejected, rejected) = (
        split_last_turn(text_cell(row, name), name) for name in ("chosen", "rejected")
    )
    if before != before_rejected:
        answers = ((before, chosen), (before_rejected, rejected))
        sides = [[*turns(b), {"role": "assistant", "content": text}] for b, text in answers]
        return trl.build_row({"chosen": sides[0], "rejected": sides[1]}, config)
    return [make_pair(trl.simplest(turns(before)), chosen, rejected, config)]


build = row_by_row(build_row)


def split_last_turn(text: str, name: str) -> tuple[str, str]:
    """(transcript before the assistant's last turn, that turn). Raises Unusable."""
    before, marker, answer = text.rpartition("\n\nAssistant:")
    if not marker or "\n\nHuman:" in answer:
        raise Unusable(
            RejectReason.BAD_CONVERSATION, f"{name} does not end with a turn of the assistant"
        )
    return before, answer.strip()


def turns(transcript: str) -> list[Message]:
    """Messages of a transcript that begins and ends with a human turn. Raises Unusable."""
    head, *parts = _TURN.split(transcript)
    messages = [
        {"role": _ROLES[role], "content": text.strip()}
        for role, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    if head.strip() or not messages or messages[0]["role"] != "user":
        raise Unusable(RejectReason.BAD_CONVERSATION, "the transcript begins with no human turn")
    if messages[-1]["role"] != "user":
        raise Unusable(RejectReason.BAD_CONVERSATION, "two assistant turns follow each other")
    return messages
