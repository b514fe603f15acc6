"""Counts of a synthesis stage from its committed shards."""

from __future__ import annotations

import json
from typing import Any

from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import Stage
from codepmp_ray.shard_stats import rejects_by_reason


def row_counts(ledger: ShardLedger) -> dict[str, Any]:
    """Rows in, pairs, and rejected rows by reason."""
    totals = ledger.totals()
    return {
        "num_snippets": totals.num_input_rows,
        "num_pairs": totals.num_rows["pairs"],
        "num_rejected": totals.num_rows["rejected"],
        "rejected_by_reason": rejects_by_reason(totals),
        "num_shards": totals.num_shards,
    }


def recount(stage: Stage) -> dict[str, Any]:
    """Bring the counts in `complete.json` up to date after shards were changed; returns it."""
    stage.ledger.roll_up()
    summary = stage.summary() | row_counts(stage.ledger)
    stage.store.put("complete.json", json.dumps(summary, indent=2).encode())
    return summary
