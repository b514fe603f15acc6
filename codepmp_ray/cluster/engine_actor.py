"""One engine in a Ray actor, and the rows of the blocks that are with it.

Several blocks share the engine, so that it stays full from one shard to the next. When it dies,
the actor writes down what the engine held and leaves; Ray starts another, which tries again. A
shard that goes through this more than once runs alone, in ever smaller segments, until the row that
kills engines is found (synthesis/isolation).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from codepmp_ray.cluster.crash_log import CrashLog
from codepmp_ray.cluster.device_time import DeviceTime
from codepmp_ray.cluster.late_shards import LateShards
from codepmp_ray.cluster.metrics import EngineMetrics
from codepmp_ray.cluster.turns import Turns
from codepmp_ray.cluster.vllm_process import leave_with_engine
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.errors import EngineError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.engine import EngineDied
from codepmp_ray.synthesis.isolation import Crash, plan_attempt

Row = dict[str, Any]
# Without the number of deaths, so that the row is the same whatever happened around it.
_CRASH_DETAIL = "killed its engine each time that it ran alone"
SHARD_COLUMNS = [pa.field("shard_id", pa.int64()), pa.field("shard_num_rows", pa.int64())]


class RowFunction(Protocol):
    """What a pool does with one row. Neither method may raise because of the row."""

    async def __call__(self, row: Row, engine: Any) -> Row:
        """`engine` is what the pool's `make_engine` made."""
        ...

    def give_up(self, row: Row, detail: str) -> Row:
        """The row as it ends when it kills its engine each time."""
        ...


class EngineActor:
    """Blocks in, blocks out: the same shards with what the engine added to their rows."""

    def __init__(
        self,
        stage: str,
        pool: str,
        engine: EngineConfig,
        make_row_function: Callable[[], RowFunction],
        make_engine: Callable[[EngineConfig], Any],
        schema: pa.Schema,
        out_dir: str,
        late: LateShards,
        attempt: str,
        num_gpus: float,
    ) -> None:
        store = open_store(out_dir)
        DeviceTime(store, attempt, num_gpus)
        self._crashes = CrashLog(store, pool)
        num_deaths = self._crashes.num_deaths(ShardLedger(store).committed_ids)
        if num_deaths > engine.max_crashes:
            raise EngineError(
                f"Engines died {num_deaths} times over shards that are not done, "
                f"max_crashes={engine.max_crashes}.",
                "Look for their last words in worker-*.out below /tmp/ray/session_latest/logs on "
                "their nodes; with a higher max_crashes the same command goes on.",
            )
        self._pool, self._late = pool, late
        self._config = engine
        self._schema = schema
        self._function = make_row_function()
        start_s = time.monotonic()
        self._engine = make_engine(engine)
        self._start_s = time.monotonic() - start_s
        self._with_engine: set[Crash] = set()
        self._metrics = EngineMetrics(stage, engine.model_name_or_path)
        self._loop_state: _LoopState | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        if batch.num_rows == 0:
            return batch
        if self._loop_state is None:  # belongs to the event loop, which the constructor has not
            self._loop_state = _LoopState(self._config.max_rows_in_flight)
        rows: list[Row] = batch.to_pylist()
        shard_id, num_rows = rows[0]["shard_id"], rows[0]["shard_num_rows"]
        self._late.started(self._pool, shard_id, self._start_s)
        crashes = self._crashes.of_shard(shard_id)
        attempt = plan_attempt(len(rows), crashes, self._config.crash_patience)
        for index in attempt.crashing:
            rows[index] = self._function.give_up(rows[index], _CRASH_DETAIL)
        for start, stop in attempt.segments:
            segment = Crash(shard_id, start, stop, attempt.alone)
            async with self._loop_state.turn(attempt.alone):
                rows[start:stop] = await self._run(segment, rows[start:stop])
        self._late.finished(self._pool, shard_id)
        return shard_block(rows, shard_id, num_rows, self._schema)

    async def _run(self, segment: Crash, rows: list[Row]) -> list[Row]:
        self._with_engine.add(segment)
        self._count_rows()
        try:
            return await asyncio.gather(*[self._one(row) for row in rows])
        except EngineDied as error:
            self._crashes.record(self._with_engine)
            self._metrics.died()
            leave_with_engine(error)
        finally:
            self._with_engine.discard(segment)
            self._count_rows()

    def _count_rows(self) -> None:
        self._metrics.rows_with_engine(sum(held.stop - held.start for held in self._with_engine))

    async def _one(self, row: Row) -> Row:
        assert self._loop_state is not None
        async with self._loop_state.slots:
            return await self._function(row, self._engine)


class _LoopState:
    """Who may use the engine now: any number of ordinary segments, or one alone."""

    def __init__(self, max_rows_in_flight: int) -> None:
        self.slots = asyncio.Semaphore(max_rows_in_flight)
        self.turn = Turns().turn


def shard_block(rows: list[Row], shard_id: int, num_rows: int, schema: pa.Schema) -> pa.Table:
    """One block: the rows of one shard, each carrying the shard's id and full row count."""
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in schema.names}
    columns["shard_id"] = [shard_id] * len(rows)
    columns["shard_num_rows"] = [num_rows] * len(rows)
    return pa.Table.from_pydict(columns, schema=pa.schema([*schema, *SHARD_COLUMNS]))
