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
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks._fake_synthesis import fake_recipe, write_fake_corpus
from benchmarks._results import RESULTS, write_results
from codepmp_ray.config.recipe import Recipe, load_recipe
from codepmp_ray.errors import StorageError
from codepmp_ray.runs import Stage, open_stage

ROWS_PER_SHARD = {"fake": 8, "vllm": 4}
FATAL_ROW = "17.3"  # shard 17, row 3: its engine dies of it
RESTART_S = 240  # how long a started driver may take until its first commit


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


class Job:
    """A driver process that is started again whenever it is gone."""

    def __init__(self, engine: str, run_dir: Path) -> None:
        self.stage = open_stage(make_recipe(engine, run_dir), "synthesis")
        module = ["-m", "benchmarks.synthesis_chaos", "--engine", engine]
        self._command = [sys.executable, *module, "--drive", str(run_dir)]
        self.log = run_dir / "driver.log"
        self.num_starts = 0
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.driver = subprocess.Popen(self._command, stdout=log, stderr=log)
        self.num_starts += 1

    def num_committed(self) -> int:
        return len(self.stage.ledger.committed_ids())

    def wait_for_commit(self) -> bool:
        """Until another shard is committed; False when the stage is complete."""
        before, deadline_s = self.num_committed(), time.monotonic() + RESTART_S
        while self.num_committed() == before:
            if self.stage.is_complete:
                return False
            if self.driver.poll() is not None:
                self.start()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"nothing committed for {RESTART_S} s; see {self.log}")
            time.sleep(0.02)
        return True

    def kill(self, kind: str, choice: random.Random) -> bool:
        """SIGKILL one process of this kind; False if there is none now."""
        victims = [psutil.Process(self.driver.pid)]
        if kind != "driver":
            mark = "MapWorker" if kind == "engine actor" else "raylet/raylet"
            below = victims[0].children(recursive=True)
            victims = [p for p in below if mark in " ".join(_command_line(p))]
        if not victims:
            return False
        choice.choice(victims).kill()
        if kind == "driver":
            self.driver.wait()
        elif kind == "node":
            self._outlive_node()
        return True

    def _outlive_node(self) -> None:
        """The driver ends with an error; if it hangs instead, it is killed as an operator would."""
        try:
            self.driver.wait(60)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.wait()

    def finish(self) -> None:
        while self.driver.wait(1800) != 0:
            self.start()


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
        kills[kind] += job.driver.poll() is None and job.kill(kind, choice)
        print(f"{kills.total()} kills, {job.num_committed()}/{num_shards} shards", flush=True)
    return kills


def row_ids(stage: Stage) -> list[str]:
    ids: list[str] = []
    for table, column in (("pairs", "snippet_id"), ("rejected", "row_id")):
        rows = stage.ledger.read(table, [column])
        ids += rows.column(column).to_pylist() if rows.num_columns else []
    return ids


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

        counts = Counter(row_ids(wild.stage))
        expected = {f"{s}-{i}" for s in range(num_shards) for i in range(rows_per_shard)}
        num_lost, num_doubled = len(expected - counts.keys()), counts.total() - len(counts)
        if strangers := counts.keys() - expected:
            raise StorageError(f"rows that nobody asked for: {sorted(strangers)[:3]}")
        common = {"spread": None, "runs": 1, "engine": engine, "seed": seed}
        results: list[dict[str, Any]] = [
            {
                "metric": f"rows_lost_plus_duplicated_{engine}",
                "value": num_lost + num_doubled,
                "unit": "rows",
                "goal": 0,
                **common,
                "num_rows": len(expected),
                "num_shards": num_shards,
                "kills": dict(kills),
                "num_driver_starts": wild.num_starts,
                "rejected": wild.stage.summary()["rejected_by_reason"],
            }
        ]
        if calm:
            ours, theirs = digests(wild.stage), digests(calm.stage)
            differing = sum(ours.get(name) != digest for name, digest in theirs.items())
            results.append(
                {
                    "metric": "files_that_differ_from_an_undisturbed_run",
                    "value": differing,
                    "unit": f"of {len(theirs)} files",
                    "goal": 0,
                    **common,
                }
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["fake", "vllm"], default="fake")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--shards", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.engine, Path(arguments.drive))
        return
    results = measure(arguments.engine, arguments.kills, arguments.shards, arguments.seed)
    # Fake and real engines are measured by two commands that share one result file.
    path = RESULTS / "synthesis_chaos.json"
    others = [] if not path.exists() else json.loads(path.read_text())
    kept = [result for result in others if result["engine"] != arguments.engine]
    write_results("synthesis_chaos", results)
    if kept:
        fresh = json.loads(path.read_text())
        path.write_text(json.dumps([*kept, *fresh], indent=2) + "\n")


if __name__ == "__main__":
    main()
