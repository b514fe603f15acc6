"""Ray nodes that are processes on this machine, each with an address and labels of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from codepmp_ray.cluster.space_free import path_without_separators

# `ray start` cannot start jobs with an interpreter whose path has a space; seen through a link it
# has none.
BIN = path_without_separators(Path(sys.prefix)) / "bin"
RAY = [str(BIN / "python"), "-m", "ray.scripts.scripts"]
HEAD_ADDRESS = "127.0.0.1:6379"
MIB = 1 << 20
_STOP_TIMEOUT_S, _START_TIMEOUT_S, _START_ATTEMPTS = 30, 120, 3


@dataclass(frozen=True)
class RayNode:
    """One `ray start --block` and the processes below it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def has_started(self) -> bool:
        return "Ray runtime started" in self.log.read_text(errors="replace")

    def wait_until_started(self) -> None:
        """Raises RuntimeError when it does not start."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self.has_started:
            if not self.is_alive or time.monotonic() > deadline_s:
                said = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} did not start: {said}")
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """This node's, those of its workers included, also when `ray start` itself has ended."""
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid:
                    found |= {process, *process.children(recursive=True)}
        return list(found)

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)  # --block then stops the node's processes

    def wait(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """For the end of a node that was asked to stop; one that does not end is killed."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all at once, as when the machine loses its power; they are gone then."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()
        while any(_runs(process) for process in processes):
            time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    """Not yet ended; one that has, and that nobody waited for, stays as a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_node(
    name: str,
    folder: Path,
    *options: str,
    address: str = "127.0.0.1",
    num_cpus: int = 1,
    object_store_mib: int = 100,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
) -> RayNode:
    """A head (with "--head" among the options) or another node; returns before it is up.

    Args:
        folder: of its log, `name`.log, and of its session; short, as sockets lie below it.
        inside: a command that runs another one elsewhere, for example in a network namespace.
    """
    command = [*inside, *RAY, "start", "--block", f"--node-ip-address={address}", *options]
    # A session folder of its own: nodes that start at once would take each other's sockets.
    command += [f"--temp-dir={folder}/{name}", f"--num-cpus={num_cpus}", "--num-gpus=0"]
    command.append(f"--object-store-memory={object_store_mib * MIB}")
    if resources:
        command.append(f"--resources={json.dumps(dict(resources))}")
    if labels:
        command.append("--labels=" + ",".join(f"{key}={value}" for key, value in labels.items()))
    file = folder / f"{name}.log"
    with open(file, "ab") as log:
        process = subprocess.Popen(
            command,
            env=dict(os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return RayNode(name, process, file)


def start_head(
    folder: Path, *options: str, address: str = "127.0.0.1", port: int = 6379, **node: Any
) -> RayNode:
    """A head without a dashboard, when it has started. `node` is what `start_node` takes."""
    options = ("--head", "--disable-usage-stats", "--include-dashboard=false", *options)
    return started(
        lambda: start_node("head", folder, f"--port={port}", *options, address=address, **node)
    )


def started(start: Callable[[], RayNode]) -> RayNode:
    """What `start` gives, once it is up; tried again, as Ray gives up soon on a busy machine."""
    for attempts_left in reversed(range(_START_ATTEMPTS)):
        node = start()
        try:
            node.wait_until_started()
            return node
        except RuntimeError:
            node.kill()
            if not attempts_left:
                raise
    raise AssertionError("not reached")


def start_worker(name: str, folder: Path, head: str = HEAD_ADDRESS, **node: Any) -> RayNode:
    """A node that joins `head`; returns before it has. `node` is what `start_node` takes."""
    return start_node(name, folder, f"--address={head}", **node)


def wait_for_nodes(num_nodes: int, timeout_s: float = 120) -> None:
    """Until the cluster that this process has joined has so many nodes, its head included."""
    import ray

    deadline_s = time.monotonic() + timeout_s
    while (found := sum(node["Alive"] for node in ray.nodes())) < num_nodes:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{found} of {num_nodes} nodes after {timeout_s:g} s")
        time.sleep(0.2)


def stop_all(nodes: Sequence[RayNode]) -> None:
    """The last one first: a head after those that would miss it."""
    for node in reversed(nodes):
        node.ask_to_stop()
    for node in reversed(nodes):
        node.wait()
