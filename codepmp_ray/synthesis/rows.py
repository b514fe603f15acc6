"""A row on its way to a pair: a dict with the snippet's columns and what was made of it so far."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from codepmp_ray.records import PAIR, REJECTED, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates import clean

Row = dict[str, Any]


def tables_of(
    pairs: list[Row], rejected: list[Row], schema: pa.Schema = PAIR
) -> dict[str, pa.Table]:
    """The two tables of a shard, of rows of `schema` and of REJECTED."""
    return {
        "pairs": table_from_rows(pairs, schema),
        "rejected": table_from_rows(rejected, REJECTED),
    }


def refuse(row: Row, reason: RejectReason, detail: str) -> Row:
    """The row, marked as one that becomes no pair; later hops leave it alone."""
    return {**row, "reject_reason": str(reason), "reject_detail": clean(detail)}
