"""Measures each engine pool at full load on a few snippets, one pool after the other.

In the job itself the slower pool keeps the faster one waiting, which says little about the faster
one. Of the pilot only the prediction is kept, which the stage is held against when it is done.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.cluster.engine_actor import Row
from codepmp_ray.cluster.pool_sizes import pool_limits
from codepmp_ray.cluster.preflight import (
    cluster_offers,
    engine_gpus,
    engine_needs,
    num_gpus_in_cluster,
    possible_resources,
    require_engines,
)
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, rows_at_once, run_shards
from codepmp_ray.cluster.synthesis import pinned_pools, read_shard_of_stage
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.sources import require_weights
from codepmp_ray.records import table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import Store, open_store
from codepmp_ray.synthesis.capacity import PoolRate, pace_of, steady_window
from codepmp_ray.synthesis.engine import TextEngine
from codepmp_ray.synthesis.hops import IN_FLIGHT, RowProcessor
from codepmp_ray.synthesis.plan import PoolPlan
from codepmp_ray.synthesis.prediction import save_prediction

_TIMED = pa.schema(
    [*IN_FLIGHT, pa.field("started_s", pa.float64()), pa.field("ended_s", pa.float64())]
)


@dataclass(frozen=True)
class Pilot:
    """What was measured.

    Attributes:
        yield_share: share of snippets that no hop gave up.
        num_engines: engines that the recipe's pools will have here.
        rows_per_s: snippets per second of those together.
        start_s: seconds before the first of them.
    """

    rates: list[PoolRate]
    num_rows: int
    yield_share: float
    num_engines: dict[str, int]
    rows_per_s: float
    start_s: float


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

    Raises ConfigError where no model is asked, InputError when the corpus stage is missing or
    empty, ModelError and ResourceError as synthesis.
    """
    pools = pinned_pools(recipe)
    if not pools:
        raise ConfigError(
            f"synthesis.construction={recipe.synthesis.construction} asks no model: there are no "
            "engines to plan.",
            "Make the pairs: codepmp pairs make.",
        )
    corpus = open_stage(recipe, "corpus").require()
    for pool in pools:
        if pool.engine.kind == "vllm":
            require_weights(pool.engine.written_name)
        require_engines([(pool.name, pool.engine)])
    scratch = open_store(recipe.run_dir).sub(f".pilot-{uuid.uuid4().hex[:8]}")
    table, rates = "snippets", []
    wanted = recipe.planning.pilot_rows or 4 * max(rows_at_once(pool.engine) for pool in pools)
    try:
        num_shards = _cut(corpus.ledger, scratch.sub("snippets"), wanted)
        source = scratch.sub("snippets").uri
        rows = pa.table({})
        for pool in pools:
            out_dir, begin_s = scratch.sub(pool.name).uri, time.time()
            run_shards(_job(recipe, pool, source, table, out_dir), num_shards)
            rows = ShardLedger(open_store(out_dir)).read("rows")
            rates.append(_rate(pool, rows, begin_s))
            source, table = out_dir, "rows"
    finally:
        scratch.delete_tree("")
    kept = rows.column("reject_reason").null_count
    needs = engine_needs([(pool.name, pool.engine) for pool in pools])
    limits = pool_limits(needs, [pool.engine.max_actors for pool in pools], cluster_offers())
    engines = dict(zip((pool.name for pool in pools), limits, strict=True))
    pilot = Pilot(
        rates,
        rows.num_rows,
        kept / rows.num_rows,
        engines,
        pace_of(rates, engines, shares_cores=_share_cores(pools, engines)),
        max(rate.start_s for rate in rates),
    )
    save_prediction(open_stage(recipe, "synthesis"), pilot.start_s, pilot.rows_per_s)
    return pilot


def _share_cores(pools: list[PoolPlan], num_engines: dict[str, int]) -> bool:
    """Whether engines on CPUs want more cores than there are: each takes all unless it is told."""
    cores = possible_resources().get("CPU", 1.0)
    wanted = sum(
        num_engines[pool.name] * (pool.engine.cpu_threads or cores)
        for pool in pools
        if pool.engine.kind == "vllm" and not engine_gpus(pool.engine)
    )
    return wanted > cores


def _cut(corpus: ShardLedger, folder: Store, num_rows: int) -> int:
    """Snippets from all over the corpus, in shards small enough to fill an engine evenly."""
    snippets: list[Row] = []
    commits = [commit for commit in corpus.commits() if commit.num_rows["snippets"]]
    total = sum(commit.num_rows["snippets"] for commit in commits)
    if not total:
        raise InputError("The corpus holds no snippet to measure engines on.")
    # Every total/num_rows-th snippet; shards in which none of them lies are not read.
    wanted = [i * total // num_rows for i in range(num_rows)] if num_rows < total else range(total)
    start, number = 0, 0
    for commit in commits:
        stop, here = start + commit.num_rows["snippets"], []
        while number < len(wanted) and wanted[number] < stop:
            here.append(wanted[number] - start)
            number += 1
        if here:
            rows = corpus.store.read_table(commit.files["snippets"])
            snippets += rows.take(pa.array(here)).to_pylist()
        start = stop
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


def _rate(pool: PoolPlan, rows: pa.Table, begin_s: float) -> PoolRate:
    fields = ["description" if hop == "describe" else hop for hop in pool.hops]
    names = [
        f"{field}_num_tokens" for field in fields if f"{field}_num_tokens" in rows.schema.names
    ]
    done = [row for row in rows.to_pylist() if row["ended_s"]]
    starts, ends = ([row[name] for row in done] for name in ("started_s", "ended_s"))
    begin, end, is_steady = steady_window(starts, ends, rows_at_once(pool.engine))
    counted = [row for row in done if begin < row["ended_s"] <= end]
    num_tokens = sum(row[name] or 0 for row in counted for name in names)
    has_gpus = num_gpus_in_cluster(pool.engine.label_selector) > 0
    devices = engine_gpus(pool.engine) if has_gpus else pool.engine.num_cpus
    elapsed_s, start_s = end - begin, min(starts) - begin_s
    pace = max(len(counted), 1) / elapsed_s
    return PoolRate(pool.name, devices, pace, num_tokens / elapsed_s, start_s, is_steady)
