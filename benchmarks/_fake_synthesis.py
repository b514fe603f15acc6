"""A synthesis job with fake engines over a made-up corpus: for control-plane benchmarks only.

A job's driver is a process that is started again whenever it is gone.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._results import one_result
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import StorageError
from codepmp_ray.records import REJECTED, SNIPPET, table_from_rows
from codepmp_ray.runs import Stage, open_stage


def fake_recipe(run_dir: Path, engine_args: dict[str, Any], **engine: Any) -> Recipe:
    """Strong and weak are fake engines in pools of their own."""
    common = {"kind": "fake", "engine_args": engine_args, "num_cpus": 0.5, **engine}
    return parse_recipe(
        {
            "run_dir": str(run_dir),
            "engines": {
                role: {**common, "model_name_or_path": f"fake-{role}"}
                for role in ("strong", "weak")
            },
        },
        "benchmark",
    )


def write_fake_corpus(recipe: Recipe, num_shards: int, rows_per_shard: int) -> None:
    """The corpus stage of `recipe`, complete; row i of shard s is called "s-i"."""
    stage = open_stage(recipe, "corpus")
    stage.start(num_shards)
    rejected = table_from_rows([], REJECTED)
    for shard_id in range(num_shards):
        rows = [
            {
                "snippet_id": f"{shard_id}-{i}",
                "code": f"def f(x):\n    return x + {shard_id}.{i}",
                "language": "python",
            }
            for i in range(rows_per_shard)
        ]
        tables = {"snippets": table_from_rows(rows, SNIPPET), "rejected": rejected}
        stage.ledger.commit(shard_id, rows_per_shard, tables)
    stage.complete({"num_snippets": num_shards * rows_per_shard})


RESTART_S = 240  # how long a started driver may take until its first commit


class Driver:
    """`command` resumes what an earlier one has left; it writes to `log`."""

    def __init__(
        self,
        stage: Stage,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.stage, self.log = stage, log
        self._command, self._environment = command, environment
        self.num_starts = 0
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )
        self.num_starts += 1

    def num_committed(self) -> int:
        return len(self.stage.ledger.committed_ids())

    def wait_for_commit(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Until another shard is committed; False when the stage is complete.

        `meanwhile` is called again and again: what starts dead nodes does not wait for commits.
        """
        before, deadline_s = self.num_committed(), time.monotonic() + RESTART_S
        while self.num_committed() == before:
            if self.stage.is_complete:
                return False
            if self.process.poll() is not None:
                self.start()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"nothing committed for {RESTART_S} s; see {self.log}")
            meanwhile()
            time.sleep(0.02)
        return True

    def finish(self) -> None:
        while self.process.wait(1800) != 0:
            self.start()


def row_ids(stage: Stage) -> list[str]:
    """Of all committed rows, pairs and rejected ones."""
    ids: list[str] = []
    for table, column in (("pairs", "snippet_id"), ("rejected", "row_id")):
        rows = stage.ledger.read(table, [column])
        ids += rows.column(column).to_pylist() if rows.num_columns else []
    return ids


def count_rows(stage: Stage, num_shards: int, rows_per_shard: int) -> dict[str, Any]:
    """The result that says how many rows of a fake corpus are missing or there twice.

    Raises StorageError for rows that nobody asked for.
    """
    counts = Counter(row_ids(stage))
    expected = {f"{s}-{i}" for s in range(num_shards) for i in range(rows_per_shard)}
    if strangers := counts.keys() - expected:
        raise StorageError(f"rows that nobody asked for: {sorted(strangers)[:3]}")
    num_wrong = len(expected - counts.keys()) + counts.total() - len(counts)
    return one_result(
        "rows_lost_plus_duplicated",
        num_wrong,
        "rows",
        0,
        met=num_wrong == 0,
        num_rows=len(expected),
        num_shards=num_shards,
    )
