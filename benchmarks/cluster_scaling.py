"""Synthesis from 1 to 8 worker nodes, and what its head has to do for them.

Nodes are processes on this machine. A shard has 1,000 rows, which an engine of each of the two
pools holds at once for 5 s, asleep; a node has one engine of each. So the cores here have to do
only what is not an engine: Ray's control plane, the data graph, the ledger. Measured in the steady
state, after the first shards and before the first engine runs out of them.

The CPU seconds of the head are those of its GCS, raylet, autoscaler and driver. What a head needs
for 500 nodes is extrapolated: idle, by a line through the numbers of nodes; working, by shards.

    python -m benchmarks.cluster_scaling [--nodes 1 2 4 8] [--waves 16]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks._namespaces import run_in_own_namespaces
from benchmarks._ray_nodes import (
    HEAD_ADDRESS,
    RayNode,
    start_head,
    start_worker,
    started,
    stop_all,
    wait_for_nodes,
)
from benchmarks._results import conclude, one_result, options, require_memory
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import LocalStore

_MARKS = {"gcs_server": "gcs", "raylet/raylet": "raylet", "monitor.py": "autoscaler"}


class HeadCpu:
    """By kind (gcs, raylet, autoscaler, driver, other), at several moments."""

    def __init__(self, head: RayNode) -> None:
        self._head = head
        self._moments: list[tuple[float, dict[str, float]]] = []

    def look(self, driver: subprocess.Popen[bytes] | None = None) -> None:
        """At the head and a driver on it."""
        found: defaultdict[str, float] = defaultdict(float)
        for process in self._head.processes():
            found[_kind(process)] += _cpu_s(process)
        if driver is not None:
            found["driver"] += _cpu_s(psutil.Process(driver.pid))
        self._moments.append((time.time(), found))

    def cores(self, start_s: float | None = None, end_s: float | None = None) -> dict[str, float]:
        """In use between two times of the clock, or between the first and the last look."""
        times = [at for at, _ in self._moments]
        span = [times[0] if start_s is None else start_s, times[-1] if end_s is None else end_s]
        cores: dict[str, float] = {}
        for kind in {kind for _, found in self._moments for kind in found}:
            start, end = np.interp(span, times, [seen.get(kind, 0.0) for _, seen in self._moments])
            cores[kind] = float(end - start) / (span[1] - span[0])
        return cores


def _kind(process: psutil.Process) -> str:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return "other"
    return next((kind for mark, kind in _MARKS.items() if mark in line), "other")


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


ROWS_PER_SHARD, SLEEP_S = 1_000, 5.0
TEXT = "x = 1\n" * 150  # a row of about 1 kB
SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string())])
# Shards for each node that are not measured: engines start one after another, and towards the end
# some have no more shards in their queues.
WARM_UP, TAIL = 3, 4
SETTLE_S, IDLE_S = 5.0, 10.0
GOAL = 0.9
FAR = 500  # nodes
# What a head with its driver takes, and a node (raylet, two agents, two workers, 100 MiB of store):
# assumed, not measured.
HEAD_BYTES, NODE_BYTES = 3 * 2**30, 0.6 * 2**30


class Sleep:
    """A row function that waits in the place of an engine."""

    async def __call__(self, row: dict[str, Any], engine: object) -> dict[str, Any]:
        await asyncio.sleep(SLEEP_S)
        return row

    def give_up(self, row: dict[str, Any], detail: str) -> dict[str, Any]:
        return row


def read_rows(shard_id: int) -> pa.Table:
    rows = range(shard_id * ROWS_PER_SHARD, (shard_id + 1) * ROWS_PER_SHARD)
    return pa.table({"row": list(rows), "text": [TEXT] * ROWS_PER_SHARD}, schema=SCHEMA)


def rows_table(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {"rows": pa.Table.from_pylist(rows, schema=SCHEMA)}


def drive(out_dir: Path, num_nodes: int, num_shards: int) -> None:
    """The driver, on the head: one engine of each pool for each node."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards

    engine = EngineConfig(
        kind="fake",
        num_cpus=0.5,
        min_actors=num_nodes,
        max_actors=num_nodes,
        max_rows_in_flight=ROWS_PER_SHARD,
    )
    stages = tuple(PoolStage(role, engine, Sleep) for role in ("strong", "weak"))
    job = ShardJob(
        "scaling", read_rows, SCHEMA, stages, rows_table, str(out_dir), float(ROWS_PER_SHARD)
    )
    with connect():
        wait_for_nodes(1 + num_nodes)
        run_shards(job, num_shards)


def run_job(head: RayNode, folder: Path, num_nodes: int, waves: int) -> dict[str, Any]:
    """Shards per second in the steady state, and the head's cores, idle before and then."""
    idle, busy = HeadCpu(head), HeadCpu(head)
    idle.look()
    time.sleep(IDLE_S)
    idle.look()
    out_dir, num_shards = folder / f"rows-{num_nodes}", waves * num_nodes
    command = [sys.executable, "-m", "benchmarks.cluster_scaling", "--drive", str(out_dir)]
    command += ["--nodes", str(num_nodes), "--waves", str(waves)]
    psutil.cpu_percent()  # the next call says what was busy since this one
    with open(folder / f"driver-{num_nodes}.log", "wb") as log:
        environment = {**os.environ, "RAY_ADDRESS": HEAD_ADDRESS}
        driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while driver.poll() is None:
            busy.look(driver)
            time.sleep(0.5)
    if driver.returncode:
        raise RuntimeError(f"the driver ended with {driver.returncode}; see {folder}")
    commits = sorted(commit.committed_s for commit in ShardLedger(LocalStore(out_dir)).commits())
    assert len(commits) == num_shards
    first, last = WARM_UP * num_nodes, num_shards - TAIL * num_nodes
    start_s, end_s = commits[first - 1], commits[last - 1]
    found = {
        "num_nodes": num_nodes,
        "shards_per_s": (last - first) / (end_s - start_s),
        "idle": idle.cores(),
        "busy": busy.cores(start_s, end_s),
        "num_shards_measured": last - first,
        "machine_busy_percent": psutil.cpu_percent(),
    }
    print(found, flush=True)
    return found


def results_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    one, most = runs[0], runs[-1]
    results: list[dict[str, Any]] = []

    def add(metric: str, value: float, unit: str, digits: int = 3, **more: Any) -> None:
        results.append(one_result(metric, round(value, digits), unit, **more))

    for run in runs:
        n = run["num_nodes"]
        linear = n * one["shards_per_s"] / one["num_nodes"]
        share = run["shards_per_s"] / linear
        add(f"shards_per_s_{n}_nodes", run["shards_per_s"], "shards/s")
        add(
            f"share_of_linear_{n}_nodes",
            share,
            "ratio",
            goal=f"at least {GOAL}",
            met=share >= GOAL,
            of_what_the_sleep_allows=round(run["shards_per_s"] * SLEEP_S / n, 3),
            num_shards_measured=run["num_shards_measured"],
            machine_busy_percent=run["machine_busy_percent"],
        )
    idle = [sum(run["idle"].values()) for run in runs]
    slope, base = np.polyfit([run["num_nodes"] for run in runs], idle, 1)
    work = {
        kind: (most["busy"][kind] - most["idle"].get(kind, 0.0)) / most["shards_per_s"]
        for kind in sorted(most["busy"])
    }
    per_shard = sum(work.values())
    shards_per_s = FAR / SLEEP_S
    add("head_idle", float(base), "cores", 4)
    add("head_idle_per_node", float(slope), "cores/node", 5)
    add("head_cpu_per_shard", per_shard, "s", 4, by={k: round(v, 4) for k, v in work.items()})
    add(
        f"head_cores_for_{FAR}_nodes",
        float(base) + FAR * max(0.0, float(slope)) + shards_per_s * per_shard,
        "cores",
        1,
        extrapolated=f"{shards_per_s:g} shards/s of {ROWS_PER_SHARD} rows, each {SLEEP_S:g} s",
    )
    add(
        f"seconds_per_shard_from_which_one_driver_keeps_up_with_{FAR}_nodes",
        FAR * work["driver"],
        "s",
        1,
        note="the driver is one process and mostly one thread",
    )
    return results


def measure(nodes: list[int], waves: int) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="csc", dir="/tmp"))  # sockets lie below it
    cluster, runs = [start_head(folder, num_cpus=0)], []
    try:
        for num_nodes in sorted(nodes):
            for number in range(len(cluster), num_nodes + 1):
                name, address = f"w{number}", f"127.0.0.{number + 1}"
                start = partial(start_worker, name, folder, address=address, num_cpus=2)
                cluster.append(started(start))
            time.sleep(SETTLE_S)
            runs.append(run_job(cluster[0], folder, num_nodes, waves))
    finally:
        stop_all(cluster)
    shutil.rmtree(folder, ignore_errors=True)
    return results_of(runs)


def memory_needed(num_nodes: int) -> float:
    return HEAD_BYTES + num_nodes * NODE_BYTES


def main() -> None:
    parser = options(__doc__, waves=(16, "shards for each node"))
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        (num_nodes,) = arguments.nodes
        drive(arguments.drive, num_nodes, arguments.waves * num_nodes)
        return
    if arguments.waves <= WARM_UP + TAIL:
        parser.error(
            f"--waves={arguments.waves} leaves nothing to measure; take more than {WARM_UP + TAIL}"
        )
    sizes = range(max(arguments.nodes) - 1, 0, -1)
    smaller = ((f"--nodes {size}", memory_needed(size)) for size in sizes)
    require_memory(memory_needed(max(arguments.nodes)), smaller)
    run_in_own_namespaces("benchmarks.cluster_scaling")
    conclude("cluster_scaling", measure(arguments.nodes, arguments.waves))


if __name__ == "__main__":
    main()
