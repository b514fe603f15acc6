"""Shards of rows through pools of engines on Ray Data, each committed exactly once.

    missing shard ids -> read (one task, one block) -> pool 1 -> [pool 2] -> commit (one marker)

A shard stays one block from reader to committer: its rows travel with the shard's id and row
count, and the committer refuses a block whose rows do not add up. Engines are autoscaling actor
pools; several blocks are with an actor at once, so that its engine stays full across shards.
"""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.exceptions import RayActorError

from codepmp_ray.cluster.crash_log import forget_crashes
from codepmp_ray.cluster.engine_actor import EngineActor, Row, RowFunction, shard_block
from codepmp_ray.cluster.engines import make_engine
from codepmp_ray.cluster.late_shards import LatePolicy, LateShards, LateWatch
from codepmp_ray.cluster.metrics import shard_committed
from codepmp_ray.cluster.placement import NODE_ID_LABEL, require_fit
from codepmp_ray.cluster.pool_sizes import pool_limits
from codepmp_ray.cluster.preflight import (
    cluster_offers,
    engine_gpus,
    engine_needs,
    possible_resources,
    waiting_for,
)
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.errors import (
    CodePMPError,
    ConfigError,
    EngineError,
    ModelError,
    ResourceError,
    StorageError,
)
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.progress import Progress
from codepmp_ray.shard_stats import shard_stats
from codepmp_ray.storage import open_store

# Glue stages wait for storage, not for cores. They ask for none: engines may hold all of them, and
# what asks for the smallest share would then wait for ever.
GLUE_CPUS = 0
MAX_GLUE_TASKS = 64
# Ray Data keeps about 40 kB for every block of an execution until it ends. A large job is a series
# of executions, so that its memory is bounded; engines start again with each, so each gives every
# engine many shards.
MIN_SHARDS_PER_EXECUTION = 2_000
SHARDS_PER_ENGINE = 50
# Blocks with one actor at once: there is always a next one, and a crash has not too many suspects.
MIN_BLOCKS, MAX_BLOCKS = 4, 64
# Takes a shard's id, its rows and how many of them were rejected.
AfterCommit = Callable[[int, int, int], None]
_COMMITTED = ("shard_id", "num_rows", "num_rejected")  # what a committer says of a shard


@dataclass(frozen=True)
class PoolStage:
    """One engine pool of the graph. `make_row_function` and `make_engine` run inside the actors.

    `name` is unique in the stage: what killed engines of this pool is remembered under it.
    """

    name: str
    engine: EngineConfig
    make_row_function: Callable[[], RowFunction]
    make_engine: Callable[[EngineConfig], Any] = make_engine


@dataclass(frozen=True)
class ShardJob:
    """Everything the graph needs; it is pickled to the workers.

    Attributes:
        read_shard: shard id -> its rows (Arrow table with the columns of `schema` that exist yet).
        schema: columns of a row in flight, without the shard columns.
        split_rows: finished rows -> tables that together hold each row once.
        out_dir: folder of the stage whose ledger commits the shards.
        rows_per_shard: of those that are left, on average; None where nobody knows.
        late: when the last shards are taken from their engines.
        attempt: tells the GPU time of this run of the job from that of others.
    """

    label: str
    read_shard: Callable[[int], pa.Table]
    schema: pa.Schema
    stages: tuple[PoolStage, ...]
    split_rows: Callable[[list[Row]], Mapping[str, pa.Table]]
    out_dir: str
    rows_per_shard: float | None = None
    late: LatePolicy = field(default_factory=LatePolicy)
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


def run_shards(
    job: ShardJob, num_shards: int, after_commit: AfterCommit = lambda *counts: None
) -> None:
    """Process and commit every shard that has no marker yet.

    `after_commit` is called here for each, in the order of their commits; what it raises ends the
    job.
    """
    ledger = ShardLedger(open_store(job.out_dir))
    missing = ledger.missing_ids(num_shards)
    num_done = num_shards - len(missing)
    with Progress(
        job.label, num_shards, "shards", done=num_done, waiting_for=waiting_for
    ) as progress:
        if not missing:
            ledger.roll_up()
            progress.update(num_done)
            return
        num_rows = 0
        try:
            num_at_once = shards_per_execution(job.stages)
            for start in range(0, len(missing), num_at_once):
                for committed in _committed(job, missing[start : start + num_at_once]):
                    num_done += 1
                    num_rows += committed[1]
                    progress.update(num_done, f"{num_rows} rows")
                    after_commit(*committed)
                ledger.roll_up()
        except RayActorError as error:
            max_crashes = max((stage.engine.max_crashes for stage in job.stages), default=0)
            done = f"{num_done} of {num_shards} shards"
            raise _explain(error, job.label, max_crashes, done) from error
    forget_crashes(ledger.store)


def _committed(job: ShardJob, shard_ids: list[int]) -> Iterator[tuple[int, int, int]]:
    """Run some shards; yields id, rows and rejected rows of each that is committed.

    One execution of Ray Data, and others for what was late in the one before.
    """
    left, policy, slow_nodes = set(shard_ids), job.late, set[str]()
    while left:
        with LateWatch(job.label, len(left), policy) as watch:
            graph = _graph(job, sorted(left), watch.shards, frozenset(slow_nodes))
            try:
                # With prefetching, the iterator would hold one batch back.
                for batch in graph.iter_batches(
                    batch_size=None, batch_format="pyarrow", prefetch_batches=0
                ):
                    for row in cast(pa.Table, batch).to_pylist():
                        left.discard(row["shard_id"])
                        yield row["shard_id"], row["num_rows"], row["num_rejected"]
                return
            except RayActorError:
                if not watch.late:
                    raise
        slow_nodes |= {one.holder.node_id for one in watch.late}
        policy = policy.more_patient()


def shards_per_execution(stages: tuple[PoolStage, ...]) -> int:
    """How many shards one execution of Ray Data takes."""
    num_engines = max((stage.engine.max_actors for stage in stages), default=1)
    return max(MIN_SHARDS_PER_EXECUTION, SHARDS_PER_ENGINE * num_engines)


def blocks_at_once(engine: EngineConfig, rows_per_shard: float | None) -> int:
    """How many shards are with one actor at once: enough to keep its engine full.

    That takes twice the sequences that the engine runs together, where its arguments say how many.
    """
    if not rows_per_shard:
        return MIN_BLOCKS
    return min(MAX_BLOCKS, max(MIN_BLOCKS, math.ceil(rows_at_once(engine) / rows_per_shard)))


def rows_at_once(engine: EngineConfig) -> int:
    """Rows that keep one engine full."""
    rows = engine.max_rows_in_flight
    sequences = engine.engine_args.get("max_num_seqs")
    return min(rows, 2 * int(sequences)) if sequences else rows


def _explain(error: RayActorError, label: str, max_crashes: int, done: str) -> CodePMPError:
    """What a person can do about an actor that Ray gave up on."""
    # An error in an actor's constructor arrives as text only.
    for line in str(error).splitlines():
        for kind in (ModelError, EngineError):
            name = f"codepmp_ray.errors.{kind.__name__}: "
            if line.strip().startswith(name):
                return kind(f"{line.strip().removeprefix(name)} {done} are done and kept.")
    return EngineError(
        f"An engine actor of the {label} stage died more than max_crashes={max_crashes} times "
        f"(out of memory, perhaps); {done} are done and kept.",
        "Its last words are in worker-*.out below /tmp/ray/session_latest/logs on its node. "
        "The same command resumes.",
    )


def _graph(
    job: ShardJob, shard_ids: list[int], late: LateShards, slow_nodes: frozenset[str]
) -> ray.data.Dataset:
    # 2.60 announces another way to bound restarts for 2.64, but does not have it yet.
    warnings.filterwarnings("ignore", message=".*ray_remote_args_fn.*deprecated.*")
    context = DataContext.get_current()
    # Block shaping would cut a large shard in two, and half a shard cannot be committed.
    context.target_max_block_size = None
    # Unbounded, what asks for nothing would start a process for every shard at once.
    num_cpus = possible_resources().get("CPU", 0.0)
    glue = TaskPoolStrategy(max(2, int(min(MAX_GLUE_TASKS, num_cpus))))
    dataset = ray.data.from_items(
        [{"shard_id": shard_id} for shard_id in shard_ids], override_num_blocks=len(shard_ids)
    )
    dataset = dataset.map_batches(
        partial(_read_block, job=job),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=GLUE_CPUS,
        compute=glue,
    )
    engines = _elsewhere([(stage.name, stage.engine) for stage in job.stages], slow_nodes)
    limits = pool_limits(
        engine_needs(engines), [engine.max_actors for _, engine in engines], cluster_offers()
    )
    for stage, (_, engine), limit in zip(job.stages, engines, limits, strict=True):
        num_blocks = blocks_at_once(engine, job.rows_per_shard)
        # `map_batches` would do the same, but refuses whole blocks (batch_size=None) with GPUs.
        dataset = dataset.map_batches_internal(
            EngineActor,
            fn_constructor_args=(
                job.label,
                stage.name,
                engine,
                stage.make_row_function,
                stage.make_engine,
                job.schema,
                job.out_dir,
                late,
                job.attempt,
                engine_gpus(engine),
            ),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=engine.min_actors,
                max_size=limit,
                max_tasks_in_flight_per_actor=2 * num_blocks,
                max_concurrent_calls_per_actor=num_blocks,
            ),
            num_cpus=engine.num_cpus,
            num_gpus=engine_gpus(engine),
            label_selector=dict(engine.label_selector) or None,
            ray_remote_args_fn=partial(_restart_limit, engine.max_crashes),
        )
    return dataset.map_batches(
        partial(_commit_block, job=job),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=GLUE_CPUS,
        compute=glue,
    )


def _elsewhere(
    engines: list[tuple[str, EngineConfig]], slow_nodes: frozenset[str]
) -> list[tuple[str, EngineConfig]]:
    """The engines kept off `slow_nodes`, if other nodes can hold them all."""
    if not slow_nodes:
        return engines
    others = {NODE_ID_LABEL: f"!in({', '.join(sorted(slow_nodes))})"}
    found = [
        (name, engine.model_copy(update={"label_selector": {**engine.label_selector, **others}}))
        for name, engine in engines
    ]
    try:
        require_fit(engine_needs(found), cluster_offers())
    except (ConfigError, ResourceError):
        return engines
    return found


def _restart_limit(max_crashes: int) -> dict[str, int]:
    """An actor that dies on every attempt must end the job; Ray Data would go on forever.

    One more than recorded deaths may be: the constructor, which can say why, gets the last word.
    """
    return {"max_restarts": max_crashes + 1}


def _read_block(batch: pa.Table, job: ShardJob) -> pa.Table:
    (shard_id,) = batch.column("shard_id").to_pylist()
    rows = job.read_shard(shard_id)
    if rows.num_rows == 0:
        # A block without rows reaches no later function, so its reader commits it.
        ShardLedger(open_store(job.out_dir)).commit(shard_id, 0, job.split_rows([]))
    return shard_block(rows.to_pylist(), shard_id, rows.num_rows, job.schema)


def _commit_block(batch: pa.Table, job: ShardJob) -> pa.Table:
    if batch.num_rows == 0:
        return pa.table({name: pa.array([], pa.int64()) for name in _COMMITTED})
    rows = batch.to_pylist()
    shard_id, num_rows = rows[0]["shard_id"], rows[0]["shard_num_rows"]
    if any(row["shard_id"] != shard_id for row in rows) or len(rows) != num_rows:
        raise StorageError(
            f"The block of shard {shard_id} has {len(rows)} rows instead of {num_rows}.",
            "This is a bug in the data graph: a shard was cut or mixed. Nothing was written.",
        )
    plain = [{name: row[name] for name in job.schema.names} for row in rows]
    ledger = ShardLedger(open_store(job.out_dir))
    tables = job.split_rows(plain)
    stats = shard_stats(tables)
    if ledger.commit(shard_id, num_rows, tables, stats):
        shard_committed(job.label, tables, stats)
    rejected = tables.get("rejected")
    counts = (shard_id, num_rows, 0 if rejected is None else rejected.num_rows)
    return pa.table({name: [count] for name, count in zip(_COMMITTED, counts, strict=True)})
