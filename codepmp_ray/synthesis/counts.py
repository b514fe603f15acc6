"""Counts of a synthesis stage from its committed shards."""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.json_records import record_bytes
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import Stage
from codepmp_ray.shard_stats import contamination_hits, rejects_by_reason


def sets_in_use(recipe: Recipe) -> list[str]:
    """Names of the evaluation sets that the recipe's rows are held against."""
    settings = recipe.corpus_in_use.decontamination
    return [item.name for item in settings.sets] if settings.enabled else []


def row_counts(ledger: ShardLedger, sets: list[str]) -> dict[str, Any]:
    """Rows in, pairs, rejected rows by reason, and hits of each evaluation set by side."""
    totals = ledger.totals()
    return {
        "num_snippets": totals.num_input_rows,
        "num_pairs": totals.num_rows["pairs"],
        "num_rejected": totals.num_rows["rejected"],
        "rejected_by_reason": rejects_by_reason(totals),
        "contaminated": contamination_hits(totals, sets),
        "num_shards": totals.num_shards,
    }


def recount(stage: Stage) -> dict[str, Any]:
    """Bring the counts in `complete.json` up to date after shards were changed; returns it."""
    stage.ledger.roll_up()
    summary = stage.summary()
    sets = list(summary.get("contaminated", sets_in_use(stage.recipe)))
    summary |= row_counts(stage.ledger, sets)
    stage.store.put("complete.json", record_bytes(summary, indent=2))
    return summary
