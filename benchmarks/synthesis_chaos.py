"""Exactly once under fire: random SIGKILLs of driver, engine actors and node during one job.

A job with deterministic fake engines runs once undisturbed, and once while its processes are killed
at random moments, each with rows in flight; a killed driver is started again at once, while what it
left behind may still be alive. One row also kills its engine by itself. At the end every snippet
must be there once, in files with the same bytes. With --engine vllm the engines are real
(SmolLM2-135M): then rows are counted, but sampling on a batch that moves gives other text.

    python -m benchmarks.synthesis_chaos [--kills 50] [--shards 600] [--seed 0]
    python -m benchmarks.synthesis_chaos --engine vllm --kills 5 --shards 24
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks._fake_synthesis import Driver, count_rows, fake_recipe, write_fake_corpus
from benchmarks._results import one_result, options, write_beside
from codepmp_ray.config.recipe import Recipe, load_recipe
from codepmp_ray.runs import Stage, open_stage

ROWS_PER_SHARD = {"fake": 8, "vllm": 4}
FATAL_ROW = "17.3"  # shard 17, row 3: its engine dies of it


def make_recipe(engine: str, run_dir: Path) -> Recipe:
    if engine == "fake":
        arguments = {"latency_s": 0.5, "die_on": f"return x + {FATAL_ROW}\n"}
        return fake_recipe(run_dir, arguments, max_rows_in_flight=64, num_cpus=0.4)
    short = [f"synthesis.{hop}.max_tokens=48" for hop in ("describe", "chosen", "rejected")]
    return load_recipe("jobs/recipes/laptop.yaml", [f"run_dir={run_dir}", *short])


def drive(engine: str, run_dir: Path) -> None:
    """What a driver process does; started again, it resumes."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.synthesis import synthesize

    with connect():
        synthesize(make_recipe(engine, run_dir))


class Job(Driver):
    """The job's driver, whose processes are killed."""

    def __init__(self, engine: str, run_dir: Path) -> None:
        stage = open_stage(make_recipe(engine, run_dir), "synthesis")
        module = ["-m", "benchmarks.synthesis_chaos", "--engine", engine]
        command = [sys.executable, *module, "--drive", str(run_dir)]
        super().__init__(stage, command, run_dir / "driver.log")

    def kill(self, kind: str, choice: random.Random) -> bool:
        """SIGKILL one process of this kind; False if there is none now."""
        victims = [psutil.Process(self.process.pid)]
        if kind != "driver":
            mark = "MapWorker" if kind == "engine actor" else "raylet/raylet"
            below = victims[0].children(recursive=True)
            victims = [p for p in below if mark in " ".join(_command_line(p))]
        if not victims:
            return False
        choice.choice(victims).kill()
        if kind == "driver":
            self.process.wait()
        elif kind == "node":
            self._outlive_node()
        return True

    def _outlive_node(self) -> None:
        """The driver ends with an error; if it hangs instead, it is killed as an operator would."""
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def harass(job: Job, num_kills: int, num_shards: int, choice: random.Random) -> Counter[str]:
    """Kill at random until it was done `num_kills` times; returns how often which."""
    kills: Counter[str] = Counter()
    while kills.total() < num_kills:
        # A commit shows that the graph is full: other shards are with the engines now.
        if not job.wait_for_commit() or num_shards - job.num_committed() < 4:
            raise RuntimeError(f"only {kills.total()} kills before the end: raise --shards")
        time.sleep(choice.uniform(0.0, 1.0))
        kind = choice.choice(["driver", "engine actor", "node"])
        kills[kind] += job.process.poll() is None and job.kill(kind, choice)
        print(f"{kills.total()} kills, {job.num_committed()}/{num_shards} shards", flush=True)
    return kills


def digests(stage: Stage) -> dict[str, str]:
    """Of every committed data file, by shard and table."""
    return {
        f"{commit.shard_id}/{table}": hashlib.sha256(stage.store.read_bytes(name)).hexdigest()
        for commit in stage.ledger.commits()
        for table, name in commit.files.items()
    }


def measure(engine: str, num_kills: int, num_shards: int, seed: int) -> list[dict[str, Any]]:
    rows_per_shard = ROWS_PER_SHARD[engine]
    with tempfile.TemporaryDirectory(prefix="chaos ") as scratch:
        calm_dir, wild_dir = Path(scratch) / "calm", Path(scratch) / "wild"
        for folder in (calm_dir, wild_dir):
            folder.mkdir()
            write_fake_corpus(make_recipe(engine, folder), num_shards, rows_per_shard)
        calm = Job(engine, calm_dir) if engine == "fake" else None
        if calm:
            calm.finish()
        wild = Job(engine, wild_dir)
        kills = harass(wild, num_kills, num_shards, random.Random(seed))
        wild.finish()

        common = {"engine": engine, "seed": seed}
        results: list[dict[str, Any]] = [
            {
                **count_rows(wild.stage, num_shards, rows_per_shard),
                **common,
                "metric": f"rows_lost_plus_duplicated_{engine}",
                "kills": dict(kills),
                "num_driver_starts": wild.num_starts,
                "rejected": wild.stage.summary()["rejected_by_reason"],
            }
        ]
        if calm:
            ours, theirs = digests(wild.stage), digests(calm.stage)
            differing = sum(ours.get(name) != digest for name, digest in theirs.items())
            results.append(
                one_result(
                    "files_that_differ_from_an_undisturbed_run",
                    differing,
                    f"of {len(theirs)} files",
                    0,
                    **common,
                )
            )
    return results


def main() -> None:
    parser = options(__doc__, kills=50, shards=600, seed=0)
    parser.add_argument("--engine", choices=["fake", "vllm"], default="fake")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.engine, Path(arguments.drive))
        return
    results = measure(arguments.engine, arguments.kills, arguments.shards, arguments.seed)
    write_beside("synthesis_chaos", results, "engine")


if __name__ == "__main__":
    main()
