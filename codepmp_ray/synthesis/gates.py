"""Which finished rows become pairs. Each gate returns the reason for refusing, or None."""

from __future__ import annotations

import re

from codepmp_ray.records import RejectReason

_EMPTY = {
    "description": RejectReason.DESCRIPTION_EMPTY,
    "chosen": RejectReason.CHOSEN_EMPTY,
    "rejected": RejectReason.REJECTED_EMPTY,
}
_CUT_OFF = {
    "description": RejectReason.DESCRIPTION_CUT_OFF,
    "chosen": RejectReason.CHOSEN_CUT_OFF,
    "rejected": RejectReason.REJECTED_CUT_OFF,
}
# Fence markers alone (an empty code block) say as little as nothing at all.
_FENCE_LINE = re.compile(r"^\s*(`{3,}|~{3,})[^\n]*$", re.MULTILINE)


def empty_reason(field: str, text: str) -> RejectReason | None:
    """Nothing but blank space and fence markers."""
    return None if _FENCE_LINE.sub("", text).strip() else _EMPTY[field]


def cut_off_reason(field: str, finish_reason: str) -> RejectReason | None:
    """The engine stopped for another reason than the end of the answer."""
    return None if finish_reason == "stop" else _CUT_OFF[field]


def equal_reason(chosen: str, rejected: str) -> RejectReason | None:
    """Both sides say the same, blank space aside."""
    return RejectReason.SIDES_EQUAL if chosen.split() == rejected.split() else None
