"""Nodes come with a synthesis job and go after it: 0 -> 3 -> 0 workers, every row once.

Ray's autoscaler (v2) is the real one; its machines are processes here, of the types
strong-synthesis (at most 2) and weak-synthesis (at most 1), told apart by label. Engines are fake:
an answer takes --latency seconds. The head has no CPU to spare for an engine.

    python -m benchmarks.cluster_autoscaling [--shards 80] [--latency 1.0] [--idle 10]
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks._fake_synthesis import count_rows, write_fake_corpus
from benchmarks._namespaces import run_in_own_namespaces
from benchmarks._process_nodes import HEAD_ID
from benchmarks._ray_nodes import HEAD_ADDRESS, start_head, stop_all
from benchmarks._results import conclude, one_result, options
from codepmp_ray.cluster.preflight import NODE_TYPES_VARIABLE
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.runs import open_stage

LABEL = "codepmp-role"
TYPES = {"strong-synthesis": 2, "weak-synthesis": 1}
ROWS_PER_SHARD = 8
GIB = 1 << 30
EMPTY_LISTS = [
    *("cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
    *("rsync_exclude", "rsync_filter"),
]
GOAL, GONE_TIMEOUT_S = "0 -> 3 -> 0", 180


def launcher(folder: Path, idle_s: float, types: dict[str, int]) -> dict[str, Any]:
    """The autoscaler's configuration, in the form of a launcher file."""
    workers = {
        name: {
            "min_workers": 0,
            "max_workers": most,
            "resources": {"CPU": 2, "memory": GIB, "object_store_memory": GIB // 10},
            "labels": {LABEL: name},
            "node_config": {},
        }
        for name, most in types.items()
    }
    return {
        "cluster_name": "processes",
        "max_workers": sum(types.values()),
        "upscaling_speed": 10,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",
            "module": "benchmarks._process_nodes.ProcessNodeProvider",
            "gcs_address": HEAD_ADDRESS,
            "folder": str(folder),
            "head_node_type": "head",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "head_node_type": "head",
        "available_node_types": {
            "head": {"max_workers": 0, "resources": {"CPU": 1}, "node_config": {}},
            **workers,
        },
        "file_mounts": {},
        **{key: [] for key in EMPTY_LISTS},
        "file_mounts_sync_continuously": False,
    }


@contextmanager
def autoscaling_head(
    folder: Path, idle_s: float, types: dict[str, int], *options: str
) -> Iterator[None]:
    """A head with an autoscaler, and with `options` of `ray start`; RAY_ADDRESS leads to it."""
    file = folder / "launcher.yaml"
    file.write_text(yaml.safe_dump(launcher(folder, idle_s, types)))
    head = start_head(
        folder,
        f"--autoscaling-config={file}",
        *options,
        object_store_mib=200,
        environment={
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_NODE_TYPE_NAME": "head",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            NODE_TYPES_VARIABLE: str(file),  # submitted jobs have the head's environment
        },
    )
    os.environ.update({"RAY_ADDRESS": HEAD_ADDRESS, NODE_TYPES_VARIABLE: str(file)})
    try:
        yield
    finally:
        stop_all([head])


class Watch:
    """How many nodes of each type live, looked up twice a second."""

    def __init__(self) -> None:
        self.start_s = time.monotonic()
        self.seen: list[tuple[float, Counter[str]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> Counter[str]:
        import ray

        labels = [node["Labels"].get(LABEL) for node in ray.nodes() if node["Alive"]]
        return Counter(label for label in labels if label)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            found = self.now()
            if not self.seen or self.seen[-1][1] != found:
                self.seen.append((time.monotonic() - self.start_s, found))
                print(f"{self.seen[-1][0]:6.1f} s  {dict(found)}", flush=True)

    def first(self, num_nodes: int) -> float | None:
        """When there were that many workers for the first time, s."""
        return next((at for at, found in self.seen if found.total() >= num_nodes), None)


def make_recipe(run_dir: Path, latency_s: float) -> Recipe:
    engines = {
        role: {
            "kind": "fake",
            "model_name_or_path": f"fake-{role}",
            "engine_args": {"latency_s": latency_s},
            "num_cpus": 1.5,
            "min_actors": 1,
            "max_actors": TYPES[f"{role}-synthesis"],
            "max_rows_in_flight": ROWS_PER_SHARD,
            "label_selector": {LABEL: f"{role}-synthesis"},
        }
        for role in ("strong", "weak")
    }
    return parse_recipe({"run_dir": str(run_dir), "engines": engines}, "benchmark")


def wait_until_gone(watch: Watch) -> float | None:
    """Seconds since the watch began until there is no worker; None when some stay."""
    give_up_s = time.monotonic() + GONE_TIMEOUT_S
    while time.monotonic() < give_up_s:
        if not watch.now():
            return time.monotonic() - watch.start_s
        time.sleep(0.5)
    return None


@dataclass(frozen=True)
class Watched:
    """`nodes` that there were before, during and after some work, as a result; seconds since the
    beginning until the work was done and until no node was left (None: some stayed)."""

    nodes: dict[str, Any]
    watch: Watch
    done_s: float
    gone_s: float | None


def watched(name: str, goal: str, work: Callable[[], Any], **context: Any) -> tuple[Watched, Any]:
    """Also what `work` returns."""
    with Watch() as watch:
        num_before = watch.now().total()
        returned = work()
        done_s = time.monotonic() - watch.start_s
        most = max((found.total() for _, found in watch.seen), default=0)
        gone_s = wait_until_gone(watch)
        num_after = watch.now().total()
    nodes = f"{num_before} -> {most} -> {num_after}"
    context |= {"timeline": [[round(at, 1), dict(found)] for at, found in watch.seen]}
    metric = f"{name}worker_nodes_before_during_after"
    figure = one_result(metric, nodes, "nodes", goal, met=nodes == goal, **context)
    return Watched(figure, watch, done_s, gone_s), returned


def measure(num_shards: int, latency_s: float, idle_s: float) -> list[dict[str, Any]]:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.synthesis import synthesize

    folder = Path(tempfile.mkdtemp(prefix="cas", dir="/tmp"))  # sockets lie below it
    recipe = make_recipe(folder / "run", latency_s)
    write_fake_corpus(recipe, num_shards, ROWS_PER_SHARD)
    common = {"num_shards": num_shards}
    with autoscaling_head(folder, idle_s, TYPES), connect():
        found, _ = watched("", GOAL, lambda: synthesize(recipe), **common)
    rows = count_rows(open_stage(recipe, "synthesis"), num_shards, ROWS_PER_SHARD)
    if rows["met"]:
        shutil.rmtree(folder, ignore_errors=True)

    def seconds(metric: str, value: float | None) -> dict[str, Any]:
        rounded = None if value is None else round(value, 1)
        return one_result(metric, rounded, "s", **common)

    return [
        rows,
        found.nodes,
        seconds("until_the_first_worker_node", found.watch.first(1)),
        seconds("until_all_worker_nodes", found.watch.first(sum(TYPES.values()))),
        seconds("job", found.done_s),
        seconds(
            f"from_the_job_s_end_to_no_worker_node_idle_timeout_{idle_s:g}_s",
            None if found.gone_s is None else found.gone_s - found.done_s,
        ),
    ]


def main() -> None:
    arguments = options(__doc__, shards=80, latency=1.0, idle=10.0).parse_args()
    run_in_own_namespaces("benchmarks.cluster_autoscaling")
    conclude("cluster_autoscaling", measure(arguments.shards, arguments.latency, arguments.idle))


if __name__ == "__main__":
    main()
