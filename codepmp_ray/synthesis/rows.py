"""A row on its way to a pair: a dict with the snippet's columns and what was made of it so far."""

from __future__ import annotations

from typing import Any

from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates import clean

Row = dict[str, Any]


def refuse(row: Row, reason: RejectReason, detail: str) -> Row:
    """The row, marked as one that becomes no pair; later hops leave it alone."""
    return {**row, "reject_reason": str(reason), "reject_detail": clean(detail)}
