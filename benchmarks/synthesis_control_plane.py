"""What the graph around the engines costs: shards through Ray Data with engines that cost nothing.

Jobs of 100 to 10,000 shards of fixed size: time should grow with their number and memory should
not. Then the ledger by itself with a million markers: planning a resume, and a status report.

    python -m benchmarks.synthesis_control_plane [--sizes 100 1000 10000] [--markers 1000000]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._fake_synthesis import fake_recipe, write_fake_corpus
from benchmarks._results import one_result, options, write_results
from codepmp_ray.ledger import GROUP_SIZE, ShardLedger
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.storage import LocalStore

ROWS_PER_SHARD = 20
FILES = 1_300_000_000  # the paper's source pool


def run_job(folder: Path, num_shards: int) -> dict[str, float]:
    """One job in this process: seconds, and the driver's largest memory in MB."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = fake_recipe(folder / f"run-{num_shards}", {"latency_s": 0.0}, num_cpus=0.4)
    write_fake_corpus(recipe, num_shards, ROWS_PER_SHARD)
    with connect():
        start_s = time.monotonic()
        summary = synthesize(recipe)
        elapsed_s = time.monotonic() - start_s
    assert summary["num_pairs"] == num_shards * ROWS_PER_SHARD
    return {"seconds": elapsed_s, "driver_mb": peak_mb()}


def write_markers(root: Path, num_shards: int) -> None:
    """Markers as `commit` writes them, without the data files and without waiting for the disk."""
    for shard_id in range(num_shards):
        group = root / "_commits" / f"{shard_id // GROUP_SIZE:05d}"
        if shard_id % GROUP_SIZE == 0:
            group.mkdir(parents=True)
        name = f"{shard_id // GROUP_SIZE:05d}/{shard_id:08d}.0123456789ab.parquet"
        marker = ShardCommit(
            shard_id,
            "0123456789ab",
            ROWS_PER_SHARD,
            {"pairs": f"pairs/{name}", "rejected": f"rejected/{name}"},
            {"pairs": ROWS_PER_SHARD - 2, "rejected": 2},
            {"rejected_by_reason.sides_equal": 2, "num_tokens.chosen_num_tokens": 4000},
            1.7e9 + shard_id,
        )
        (group / f"{shard_id:08d}.json").write_text(json.dumps(vars(marker), sort_keys=True))


def roll_up(root: Path, num_shards: int) -> dict[str, float]:
    start_s = time.monotonic()
    assert ShardLedger(LocalStore(root)).roll_up() == num_shards // GROUP_SIZE
    return {"seconds": time.monotonic() - start_s, "mb": peak_mb()}


def plan_resume(root: Path, num_shards: int) -> dict[str, float]:
    start_s = time.monotonic()
    assert ShardLedger(LocalStore(root)).missing_ids(num_shards + 5) == [
        num_shards + i for i in range(5)
    ]
    return {"seconds": time.monotonic() - start_s, "mb": peak_mb()}


def report_status(root: Path, num_shards: int) -> dict[str, float]:
    start_s = time.monotonic()
    totals = ShardLedger(LocalStore(root)).totals()
    assert totals.num_shards == num_shards
    assert totals.stats["rejected_by_reason.sides_equal"] == 2 * num_shards
    return {"seconds": time.monotonic() - start_s, "mb": peak_mb()}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(function: Any, *arguments: Any) -> dict[str, float]:
    """Call in a process of its own, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = options(__doc__, markers=1_000_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    results: list[dict[str, Any]] = []

    def add(metric: str, value: float, unit: str, goal: str | None = None, **more: Any) -> None:
        results.append(one_result(metric, round(value, 3), unit, goal, **more))

    with tempfile.TemporaryDirectory() as scratch:
        jobs = {size: alone(run_job, Path(scratch), size) for size in arguments.sizes}
        for size, job in jobs.items():
            add(f"shards_per_s_{size}", size / job["seconds"], "shards/s")
            add(f"rows_per_s_{size}", size * ROWS_PER_SHARD / job["seconds"], "rows/s")
            add(f"driver_memory_{size}", job["driver_mb"], "MB")
        small, large = arguments.sizes[-2], arguments.sizes[-1]
        growth = jobs[large]["seconds"] / jobs[small]["seconds"]
        add("time_growth", growth / (large / small), "ratio", "about 1 (linear)")
        memory = jobs[large]["driver_mb"] / jobs[small]["driver_mb"]
        add("memory_growth", memory, "ratio", "about 1 (flat)")

        root = Path(scratch) / "ledger"
        write_markers(root, arguments.markers)
        for name, function in (
            ("roll_up", roll_up),
            ("plan", plan_resume),
            ("status", report_status),
        ):
            cost = alone(function, root, arguments.markers)
            is_daily = name != "roll_up"
            add(f"{name}_time", cost["seconds"], "s", "seconds" if is_daily else None)
            add(f"{name}_memory", cost["mb"], "MB", "under 300" if is_daily else None)

    shards_per_s = large / jobs[large]["seconds"]
    for rows_per_shard in (1_000,):
        days = FILES / rows_per_shard / shards_per_s / 86_400
        note = f"one snippet per file, {rows_per_shard} per shard, this driver and these 2 cores"
        add("graph_time_for_1.3_billion_files", days, "days", None, note=note)
    write_results("synthesis_control_plane", results)


if __name__ == "__main__":
    main()
