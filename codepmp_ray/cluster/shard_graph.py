"""Shards of rows through pools of engines on Ray Data, each committed exactly once.

    missing shard ids -> read (one task, one block) -> pool 1 -> [pool 2] -> commit (one marker)

A shard stays one block from reader to committer: its rows travel with the shard's id and row
count, and the committer refuses a block whose rows do not add up. Engines are autoscaling actor
pools; several blocks are with an actor at once, so that its engine stays full across shards.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayActorError

from codepmp_ray.cluster.engines import make_engine
from codepmp_ray.cluster.preflight import engine_gpus
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.errors import CodePMPError, EngineError, ModelError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.progress import Progress
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.engine import TextEngine

Row = dict[str, Any]
# Glue stages wait for storage, not for cores; with whole CPUs they could starve the engines.
GLUE_CPUS = 0.01
# An engine that dies on every attempt must end the job; by default Ray Data would go on forever.
MAX_ENGINE_RESTARTS = 4
_SHARD_COLUMNS = [pa.field("shard_id", pa.int64()), pa.field("shard_num_rows", pa.int64())]


class RowFunction(Protocol):
    """What a pool does with one row. Must not raise because of the row."""

    async def __call__(self, row: Row, engine: TextEngine) -> Row: ...


@dataclass(frozen=True)
class PoolStage:
    """One engine pool of the graph. `make_row_function` runs inside the actors."""

    engine: EngineConfig
    make_row_function: Callable[[], RowFunction]


@dataclass(frozen=True)
class ShardJob:
    """Everything the graph needs; it is pickled to the workers.

    Attributes:
        read_shard: shard id -> its rows (Arrow table with the columns of `schema` that exist yet).
        schema: columns of a row in flight, without the shard columns.
        split_rows: finished rows -> tables that together hold each row once.
        out_dir: folder of the stage whose ledger commits the shards.
    """

    label: str
    read_shard: Callable[[int], pa.Table]
    schema: pa.Schema
    stages: tuple[PoolStage, ...]
    split_rows: Callable[[list[Row]], Mapping[str, pa.Table]]
    out_dir: str


def run_shards(job: ShardJob, num_shards: int) -> None:
    """Process and commit every shard that has no marker yet."""
    ledger = ShardLedger(open_store(job.out_dir))
    missing = ledger.missing_ids(num_shards)
    num_done = num_shards - len(missing)
    with Progress(job.label, num_shards, "shards", done=num_done) as progress:
        if not missing:
            progress.update(num_done)
            return
        num_rows = 0
        try:
            for batch in _graph(job, missing).iter_batches(batch_size=None, batch_format="pyarrow"):
                committed = cast(pa.Table, batch)
                num_done += committed.num_rows
                num_rows += sum(committed.column("num_rows").to_pylist())
                progress.update(num_done, f"{num_rows} rows")
        except RayActorError as error:
            raise _explain(error, job.label, f"{num_done} of {num_shards} shards") from error


def _explain(error: RayActorError, label: str, done: str) -> CodePMPError:
    """What a person can do about an actor that Ray gave up on."""
    # An error in an actor's constructor arrives as text only.
    for line in str(error).splitlines():
        if (found := line.strip().removeprefix("codepmp_ray.errors.ModelError: ")) != line.strip():
            return ModelError(found)
    return EngineError(
        f"An engine of the {label} stage died {MAX_ENGINE_RESTARTS + 1} times; "
        f"{done} are done and kept.",
        "Its last words are in worker-*.out below /tmp/ray/session_latest/logs on its node. "
        "The same command resumes.",
    )


def _graph(job: ShardJob, shard_ids: list[int]) -> ray.data.Dataset:
    # 2.60 announces another way to bound restarts for 2.64, but does not have it yet.
    warnings.filterwarnings("ignore", message=".*ray_remote_args_fn.*deprecated.*")
    context = DataContext.get_current()
    # Block shaping would cut a large shard in two, and half a shard cannot be committed.
    context.target_max_block_size = None
    dataset = ray.data.from_items(
        [{"shard_id": shard_id} for shard_id in shard_ids], override_num_blocks=len(shard_ids)
    )
    dataset = dataset.map_batches(
        partial(_read_block, job=job),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=GLUE_CPUS,
    )
    for stage in job.stages:
        engine = stage.engine
        dataset = dataset.map_batches(
            EngineActor,
            fn_constructor_kwargs={"job": job, "stage": stage},
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=engine.min_actors,
                max_size=engine.max_actors,
                max_tasks_in_flight_per_actor=8,
                max_concurrent_calls_per_actor=4,
            ),
            num_cpus=engine.num_cpus,
            num_gpus=engine_gpus(engine),
            ray_remote_args_fn=_restart_limit,
        )
    return dataset.map_batches(
        partial(_commit_block, job=job),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=GLUE_CPUS,
    )


def _restart_limit() -> dict[str, int]:
    return {"max_restarts": MAX_ENGINE_RESTARTS}


def _read_block(batch: pa.Table, job: ShardJob) -> pa.Table:
    (shard_id,) = batch.column("shard_id").to_pylist()
    rows = job.read_shard(shard_id)
    if rows.num_rows == 0:
        # A block without rows reaches no later function, so its reader commits it.
        ShardLedger(open_store(job.out_dir)).commit(shard_id, 0, job.split_rows([]))
    return _block(rows.to_pylist(), shard_id, rows.num_rows, job.schema)


class EngineActor:
    """One engine and the rows of the blocks that are with it."""

    def __init__(self, job: ShardJob, stage: PoolStage) -> None:
        self._schema = job.schema
        self._function = stage.make_row_function()
        self._engine = make_engine(stage.engine)
        self._max_rows_in_flight = stage.engine.max_rows_in_flight
        self._slots: asyncio.Semaphore | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        if batch.num_rows == 0:
            return batch
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._max_rows_in_flight)
        rows = batch.to_pylist()
        shard_id, num_rows = rows[0]["shard_id"], rows[0]["shard_num_rows"]
        done = await asyncio.gather(*[self._one(row) for row in rows])
        return _block(done, shard_id, num_rows, self._schema)

    async def _one(self, row: Row) -> Row:
        assert self._slots is not None
        async with self._slots:
            return await self._function(row, self._engine)


def _commit_block(batch: pa.Table, job: ShardJob) -> pa.Table:
    if batch.num_rows == 0:
        return pa.table(
            {"shard_id": pa.array([], pa.int64()), "num_rows": pa.array([], pa.int64())}
        )
    rows = batch.to_pylist()
    shard_id, num_rows = rows[0]["shard_id"], rows[0]["shard_num_rows"]
    if any(row["shard_id"] != shard_id for row in rows) or len(rows) != num_rows:
        raise StorageError(
            f"The block of shard {shard_id} has {len(rows)} rows instead of {num_rows}.",
            "This is a bug in the data graph: a shard was cut or mixed. Nothing was written.",
        )
    plain = [{name: row[name] for name in job.schema.names} for row in rows]
    ledger = ShardLedger(open_store(job.out_dir))
    ledger.commit(shard_id, num_rows, job.split_rows(plain))
    return pa.table({"shard_id": [shard_id], "num_rows": [num_rows]})


def _block(rows: list[Row], shard_id: int, num_rows: int, schema: pa.Schema) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in schema.names}
    columns["shard_id"] = [shard_id] * len(rows)
    columns["shard_num_rows"] = [num_rows] * len(rows)
    return pa.Table.from_pydict(columns, schema=pa.schema([*schema, *_SHARD_COLUMNS]))
