"""Measures each engine pool at full load on a few snippets, one pool after the other.

In the job itself the slower pool keeps the faster one waiting, which says little about the faster
one. Nothing of the pilot is kept.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.cluster.engine_actor import Row
from codepmp_ray.cluster.preflight import engine_gpus, num_gpus_in_cluster, require_engines
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.cluster.synthesis import pinned_pools, read_shard_of_stage
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.sources import require_weights
from codepmp_ray.records import table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import Store, open_store
from codepmp_ray.synthesis.capacity import PoolRate
from codepmp_ray.synthesis.engine import TextEngine
from codepmp_ray.synthesis.hops import IN_FLIGHT, RowProcessor
from codepmp_ray.synthesis.plan import PoolPlan

_TIMED = pa.schema(
    [*IN_FLIGHT, pa.field("started_s", pa.float64()), pa.field("ended_s", pa.float64())]
)


@dataclass(frozen=True)
class Pilot:
    """What was measured. `yield_share` is the share of snippets that no hop gave up."""

    rates: list[PoolRate]
    num_rows: int
    yield_share: float


class TimedProcessor:
    """A RowProcessor that notes when each row was with the engine."""

    def __init__(self, make: partial[RowProcessor]) -> None:
        self._process = make()

    async def __call__(self, row: Row, engine: TextEngine) -> Row:
        started_s = time.time()
        done = await self._process({**row, "started_s": None, "ended_s": None}, engine)
        return {**done, "started_s": started_s, "ended_s": time.time()}

    def give_up(self, row: Row, detail: str) -> Row:
        return self._process.give_up(row, detail)


def run_pilot(recipe: Recipe) -> Pilot:
    """Take `planning.pilot_rows` snippets through every pool of the synthesis stage.

    Raises InputError when the corpus stage is missing, ModelError and ResourceError as synthesis.
    """
    corpus = open_stage(recipe, "corpus").require()
    pools = pinned_pools(recipe)
    for pool in pools:
        if pool.engine.kind == "vllm":
            require_weights(pool.engine.written_name)
        require_engines([(pool.name, pool.engine)])
    scratch = open_store(recipe.run_dir).sub(f".pilot-{uuid.uuid4().hex[:8]}")
    table, rates = "snippets", []
    try:
        num_shards = _cut(corpus.ledger, scratch.sub("snippets"), recipe.planning.pilot_rows)
        source = scratch.sub("snippets").uri
        rows = pa.table({})
        for pool in pools:
            out_dir = scratch.sub(pool.name).uri
            run_shards(_job(recipe, pool, source, table, out_dir), num_shards)
            rows = ShardLedger(open_store(out_dir)).read("rows")
            rates.append(_rate(pool, rows))
            source, table = out_dir, "rows"
        kept = rows.column("reject_reason").null_count
        return Pilot(rates, rows.num_rows, kept / rows.num_rows)
    finally:
        scratch.delete_tree("")


def _cut(corpus: ShardLedger, folder: Store, num_rows: int) -> int:
    """The first snippets of the corpus in shards small enough to fill an engine evenly."""
    snippets: list[Row] = []
    for shard_id in sorted(corpus.committed_ids()):
        snippets += corpus.read_shard("snippets", shard_id).to_pylist()
        if len(snippets) >= num_rows:
            break
    snippets = snippets[:num_rows]
    ledger, size = ShardLedger(folder), max(1, -(-len(snippets) // 4))
    starts = range(0, len(snippets), size)
    for shard_id, start in enumerate(starts):
        rows = snippets[start : start + size]
        names = pa.schema([field for field in IN_FLIGHT if field.name in rows[0]])
        ledger.commit(shard_id, len(rows), {"snippets": table_from_rows(rows, names)})
    return len(starts)


def _job(recipe: Recipe, pool: PoolPlan, source: str, table: str, out_dir: str) -> ShardJob:
    one_engine = pool.engine.model_copy(update={"min_actors": 1, "max_actors": 1})
    processor = partial(
        RowProcessor, recipe.synthesis, pool.hops, recipe.corpus_in_use.decontamination
    )
    return ShardJob(
        label=f"pilot of {pool.name}",
        read_shard=partial(read_shard_of_stage, source, table),
        schema=_TIMED,
        stages=(PoolStage(pool.name, one_engine, partial(TimedProcessor, processor)),),
        split_rows=_one_table,
        out_dir=out_dir,
    )


def _one_table(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {"rows": table_from_rows(rows, _TIMED)}


def _rate(pool: PoolPlan, rows: pa.Table) -> PoolRate:
    fields = ["description" if hop == "describe" else hop for hop in pool.hops]
    num_tokens = sum(
        sum(filter(None, rows.column(f"{field}_num_tokens").to_pylist())) for field in fields
    )
    starts = [value for value in rows.column("started_s").to_pylist() if value]
    ends = [value for value in rows.column("ended_s").to_pylist() if value]
    elapsed_s = max(max(ends) - min(starts), 1e-9)
    has_gpus = num_gpus_in_cluster(pool.engine.label_selector) > 0
    devices = engine_gpus(pool.engine) if has_gpus else pool.engine.num_cpus
    return PoolRate(pool.name, devices, rows.num_rows / elapsed_s, num_tokens / elapsed_s)
