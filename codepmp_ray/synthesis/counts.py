"""Counts of a synthesis stage from its committed shards."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import Stage


def row_counts(ledger: ShardLedger) -> dict[str, Any]:
    """Rows in, pairs, and rejected rows by reason."""
    commits = ledger.commits()
    table = ledger.read("rejected", ["reason"])
    reasons = Counter(table.column("reason").to_pylist()) if table.num_columns else Counter()
    return {
        "num_snippets": sum(commit.num_input_rows for commit in commits),
        "num_pairs": sum(commit.num_rows["pairs"] for commit in commits),
        "num_rejected": sum(commit.num_rows["rejected"] for commit in commits),
        "rejected_by_reason": dict(reasons.most_common()),
        "num_shards": len(commits),
    }


def recount(stage: Stage) -> dict[str, Any]:
    """Bring the counts in `complete.json` up to date after shards were changed; returns it."""
    summary = stage.summary() | row_counts(stage.ledger)
    stage.store.put("complete.json", json.dumps(summary, indent=2).encode())
    return summary
