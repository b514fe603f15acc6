"""Replay on Ray: rejected rows of a complete synthesis stage through its hops once more."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.cluster.shard_graph import run_shards
from codepmp_ray.cluster.synthesis import check_engines, pinned_pools, snippet_job
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import open_stage
from codepmp_ray.shard_rewrite import sole_writer
from codepmp_ray.shard_stats import rejects_by_reason
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.constructions import all_hops
from codepmp_ray.synthesis.counts import recount
from codepmp_ray.synthesis.replay import (
    check_reasons,
    finish_round,
    fold_in,
    open_round,
    rows_to_replay,
)


def replay(recipe: Recipe, reasons: tuple[str, ...]) -> dict[str, Any]:
    """Run or finish one round; returns its record.

    Raises InputError when a stage is not complete, ConfigError for reasons that cannot be replayed
    and StorageError when the stage is being changed; otherwise as `synthesize`.
    """
    check_reasons(reasons)
    if not all_hops(recipe.synthesis):
        raise ConfigError(
            f"synthesis.construction={recipe.synthesis.construction} asks no model: a replay would "
            "give the same rows.",
            "Change the settings of the section synthesis; that makes a new stage.",
        )
    stage = open_stage(recipe, "synthesis").require()
    corpus = open_stage(recipe, "corpus").require()
    pools = pinned_pools(recipe)
    check_engines(pools)
    with sole_writer(stage.ledger):
        round_store = open_round(stage, reasons)
        start_s = time.monotonic()
        read = partial(read_replayed, corpus.uri, stage.uri, reasons)
        totals = stage.ledger.totals()
        num_rows = sum(rejects_by_reason(totals).get(reason, 0) for reason in set(reasons))
        rows_per_shard = num_rows / max(1, totals.num_shards)
        job = snippet_job(recipe, pools, "replay", read, round_store.uri, rows_per_shard)
        run_shards(job, totals.num_shards)
        counts = fold_in(stage, round_store)
        recount(stage)
        record = {
            "reasons": sorted(set(reasons)),
            **counts,
            "duration_s": round(time.monotonic() - start_s, 1),
        }
        finish_round(round_store, record)
    return record


def read_replayed(
    corpus_dir: str, synthesis_dir: str, reasons: tuple[str, ...], shard_id: int
) -> pa.Table:
    """Rows of one shard of the round; runs in a task."""
    corpus, synthesis = (ShardLedger(open_store(path)) for path in (corpus_dir, synthesis_dir))
    return rows_to_replay(corpus, synthesis, reasons, shard_id)
