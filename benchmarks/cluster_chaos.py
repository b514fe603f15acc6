"""Exactly once on three hosts: machines that lose power and cables that are pulled during one job.

The hosts are network namespaces on one switch, three with a worker node each and one with the head
and the driver. At random moments, rows in flight, a worker node is killed (SIGKILL to its raylet
and everything below), or a host is cut off for a while and connected again, once the head's. As a
supervisor does, a node whose raylet has ended is started again. The hosts share their storage, so
one that is cut off and thought dead goes on writing: its commits must not count twice.

    python -m benchmarks.cluster_chaos [--kills 20] [--shards 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks._fake_synthesis import Driver, count_rows, fake_recipe, write_fake_corpus
from benchmarks._namespaces import Hosts, run_in_own_namespaces
from benchmarks._ray_nodes import RayNode, start_head, start_worker, stop_all, wait_for_nodes
from benchmarks._results import conclude, one_result, options
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import open_stage

HEAD, HOSTS = "head", ("a", "b", "c")
# Host and seconds: one that is over before anybody is thought dead, and two that are not.
CUTS = (("b", 5.0), ("c", 30.0), (HEAD, 30.0))
ROWS_PER_SHARD = 8
LATENCY_S = 4.0
# docs/operations.md: without these gRPC notices a silent peer after minutes.
KEEPALIVE = {
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}


def make_recipe(run_dir: Path) -> Recipe:
    """A strong and a weak engine for each host, wherever there is room."""
    return fake_recipe(
        run_dir,
        {"latency_s": LATENCY_S},
        num_cpus=0.5,
        max_actors=len(HOSTS),
        max_rows_in_flight=2 * ROWS_PER_SHARD,
    )


def drive(run_dir: Path) -> None:
    """What the driver does; started again, it resumes."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.synthesis import synthesize

    with connect():
        wait_for_nodes(2)
        synthesize(make_recipe(run_dir))


class Cluster:
    """A head, and a worker node on each of the other hosts that can die and come back."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self._folder, self._hosts = folder, hosts
        self.environment = {**os.environ, **KEEPALIVE}
        self.address = f"{hosts.address(HEAD)}:6379"
        self._head = start_head(
            folder,
            address=hosts.address(HEAD),
            inside=hosts.inside(HEAD),
            num_cpus=0,
            environment=self.environment,
        )
        self._workers: dict[str, RayNode] = {}
        self.num_starts: Counter[str] = Counter()
        self.supervise()

    def supervise(self) -> None:
        """Start the worker nodes that are not there."""
        for host in HOSTS:
            if host in self._workers and self._workers[host].is_alive:
                continue
            self.num_starts[host] += 1
            self._workers[host] = start_worker(
                f"{host}{self.num_starts[host]}",
                self._folder,
                self.address,
                address=self._hosts.address(host),
                inside=self._hosts.inside(host),
                num_cpus=2,
                environment=self.environment,
            )

    def kill(self, host: str) -> bool:
        """False where no raylet has started yet."""
        node = self._workers[host]
        if not node.has_started:
            return False
        node.kill()
        return True

    def stop(self) -> None:
        stop_all([self._head, *self._workers.values()])


def harass(
    cluster: Cluster, hosts: Hosts, job: Driver, num_kills: int, choice: random.Random
) -> dict[str, Any]:
    """Kills and cuts in random order, each while shards are with the engines."""
    events: list[tuple[str, float] | None] = [None] * num_kills + list(CUTS)
    choice.shuffle(events)
    kills: Counter[str] = Counter()
    timeline, start_s = [], time.monotonic()

    def note(what: str) -> None:
        timeline.append([round(time.monotonic() - start_s, 1), what])
        print(*timeline[-1], f"{job.num_committed()} shards committed", flush=True)

    while events:
        if not job.wait_for_commit(cluster.supervise):
            raise RuntimeError(f"{len(events)} events before the end: raise --shards")
        cluster.supervise()
        time.sleep(choice.uniform(0.0, 2.0))
        if (event := events[-1]) is None:
            host = choice.choice(HOSTS)
            if not cluster.kill(host):
                continue
            kills[host] += 1
            note(f"killed the node of {host}")
        else:
            host, seconds = event
            hosts.cut(host)
            note(f"cut {host} off for {seconds:g} s")
            time.sleep(seconds)
            hosts.heal(host)
            note(f"connected {host}")
        events.pop()
        cluster.supervise()
    return {"kills": dict(kills), "cuts": [list(cut) for cut in CUTS], "timeline": timeline}


def measure(num_kills: int, num_shards: int, seed: int) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="cch", dir="/tmp"))  # sockets lie below it
    hosts = Hosts((HEAD, *HOSTS))
    recipe = make_recipe(folder / "run")
    write_fake_corpus(recipe, num_shards, ROWS_PER_SHARD)
    cluster = Cluster(folder, hosts)
    start_s = time.monotonic()
    command = [*hosts.inside(HEAD), sys.executable, "-m", "benchmarks.cluster_chaos"]
    job = Driver(
        open_stage(recipe, "synthesis"),
        [*command, "--drive", str(folder / "run")],
        folder / "driver.log",
        {**cluster.environment, "RAY_ADDRESS": cluster.address},
    )
    try:
        happened = harass(cluster, hosts, job, num_kills, random.Random(seed))
        while job.process.poll() is None:
            cluster.supervise()
            time.sleep(0.5)
        job.finish()
        job_s = time.monotonic() - start_s
    finally:
        job.process.kill()
        cluster.stop()
    rows = count_rows(job.stage, num_shards, ROWS_PER_SHARD)
    rows |= {"seed": seed, "num_driver_starts": job.num_starts, **happened}
    rows |= {"num_node_starts": dict(cluster.num_starts)}
    rows |= {"rejected": job.stage.summary()["rejected_by_reason"]}
    if rows["met"]:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        rows,
        one_result("job", round(job_s, 1), "s"),
    ]


def main() -> None:
    parser = options(__doc__, kills=20, shards=100, seed=0)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.drive)
        return
    run_in_own_namespaces("benchmarks.cluster_chaos")
    conclude("cluster_chaos", measure(arguments.kills, arguments.shards, arguments.seed))


if __name__ == "__main__":
    main()
