"""Counts of a corpus stage from its committed shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from codepmp_ray.ledger import ShardLedger
from codepmp_ray.shard_stats import contamination_hits, rejects_by_reason


def corpus_counts(ledger: ShardLedger, sets: Iterable[str]) -> dict[str, Any]:
    """Snippets and rejected rows, by language, licence, kind, reason and evaluation set."""
    counted: dict[str, Counter[str]] = {name: Counter() for name in ("language", "license", "kind")}
    for commit in ledger.commits():  # a shard at a time
        snippets = ledger.store.read_table(commit.files["snippets"], list(counted))
        for name, counts in counted.items():
            counts.update(snippets[name].to_pylist())
    totals = ledger.totals()
    hits = contamination_hits(totals, sets)
    return {
        "num_snippets": totals.num_rows["snippets"],
        "num_rejected": totals.num_rows["rejected"],
        "num_shards": totals.num_shards,
        "rejected": rejects_by_reason(totals),
        "contaminated": {name: sum(sides.values()) for name, sides in hits.items()},
        "languages": dict(counted["language"].most_common()),
        "licenses": dict(counted["license"].most_common()),
        "kinds": dict(counted["kind"].most_common()),
    }
