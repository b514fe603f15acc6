"""A slow and a frozen engine do not hold a job whose other engines are done."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from codepmp_ray.cluster.late_shards import LatePolicy
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import open_store

SCHEMA = pa.schema([("row", pa.string()), ("by", pa.int64())])
NUM_SHARDS, NUM_ROWS, SLOW_S = 24, 3, 2400.0
# A busy machine starts engines slowly, and what is late follows from that.
pytestmark = pytest.mark.timeout(SLOW_S / 3)


class Engine:
    """The first one that takes a row is slow."""

    def __init__(self, config: EngineConfig) -> None:
        self._slow_file = Path(config.engine_args["slow_file"])
        self._is_slow: bool | None = None

    async def take(self) -> int:
        if self._is_slow is None:
            try:
                self._slow_file.open("x").close()
                self._is_slow = True
                self._slow_file.write_text(str(os.getpid()))
            except FileExistsError:
                self._is_slow = False
        await asyncio.sleep(SLOW_S if self._is_slow else 0.2)
        return os.getpid()


class Mark:
    """Writes into each row which process had it."""

    async def __call__(self, row: dict[str, Any], engine: Engine) -> dict[str, Any]:
        return row | {"by": await engine.take()}

    def give_up(self, row: dict[str, Any], detail: str) -> dict[str, Any]:
        return row | {"by": -1}


def read_shard(shard_id: int) -> pa.Table:
    """The last shard is empty."""
    num_rows = NUM_ROWS if shard_id < NUM_SHARDS - 1 else 0
    return pa.table({"row": [f"{shard_id}-{i}" for i in range(num_rows)]})


def job(folder: Path, slow_file: Path) -> ShardJob:
    engine = EngineConfig(
        model_name_or_path="fake",
        num_cpus=0.5,
        min_actors=1,
        max_actors=2,
        engine_args={"slow_file": str(slow_file)},
    )
    return ShardJob(
        "late",
        read_shard,
        SCHEMA,
        (PoolStage("pool", engine, Mark, Engine),),
        lambda rows: {"rows": pa.Table.from_pylist(rows, SCHEMA)},
        str(folder),
        late=LatePolicy(least_s=3.0, check_s=0.5),
    )


def require_every_row_once(folder: Path, slow: int) -> None:
    ledger = ShardLedger(open_store(str(folder)))
    assert ledger.committed_ids() == set(range(NUM_SHARDS))
    rows = ledger.read("rows")
    expected = {f"{shard}-{i}" for shard in range(NUM_SHARDS - 1) for i in range(NUM_ROWS)}
    assert sorted(rows.column("row").to_pylist()) == sorted(expected)
    assert slow not in rows.column("by").to_pylist()
    assert ledger.sweep(["rows"]) == 0  # a late writer had nothing to write yet


@pytest.mark.rehearsal
def test_shards_of_a_slow_engine_are_begun_again(
    ray_cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slow_file, start_s = tmp_path / "slow", time.monotonic()
    run_shards(job(tmp_path / "a run", slow_file), NUM_SHARDS)
    assert time.monotonic() - start_s < SLOW_S / 4
    require_every_row_once(tmp_path / "a run", int(slow_file.read_text()))
    assert capfd.readouterr().err.count("What is left is begun again.") == 1


@pytest.mark.rehearsal
def test_a_frozen_engine_does_not_hold_the_job(fresh_ray: None, tmp_path: Path) -> None:
    """Ray sees its process alive: neither dead nor making progress."""
    slow_file, start_s = tmp_path / "slow", time.monotonic()
    body = partial(run_shards, job(tmp_path / "run", slow_file), NUM_SHARDS)
    running = threading.Thread(target=body, daemon=True)  # a failure ends the tests
    running.start()
    while not (slow_file.exists() and slow_file.read_text()):
        assert running.is_alive() and time.monotonic() - start_s < SLOW_S / 4
        time.sleep(0.2)
    frozen = int(slow_file.read_text())
    os.kill(frozen, signal.SIGSTOP)
    try:
        running.join(SLOW_S / 4)
        assert not running.is_alive()
    finally:
        with suppress(ProcessLookupError):
            os.kill(frozen, signal.SIGCONT)
    assert time.monotonic() - start_s < SLOW_S / 4
    require_every_row_once(tmp_path / "run", frozen)
