"""A Ray cluster of processes on this machine, apart from any other: own ports, folder and token."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks._ray_nodes import BIN, RAY, RayNode, start_node, started, stop_all
from benchmarks._results import free_port
from tests.processes import PATIENCE_S

_START_TIMEOUT_S = PATIENCE_S


class RayNodes:
    """A head that begins at once, and further nodes; `stop` ends all of them.

    `environment` is that of a client: RAY_ADDRESS, the jobs API's address and the token.
    """

    def __init__(self, log_dir: Path, **variables: str) -> None:
        self._log_dir = log_dir
        self._nodes: list[RayNode] = []
        # A short path of its own: sockets lie below it, and their paths are bounded.
        self._folder = Path(tempfile.mkdtemp(prefix="cpr", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
            # The entry point's `python` is the one that the head's PATH names.
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # When told to stop, stop: nobody waits for what this node still serves.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            **variables,
        }

    def start_head(self, num_cpus: int = 2, labels: Mapping[str, str] | None = None) -> None:
        # The job agent's own port is fixed unless said otherwise, and another test's Ray may have
        # it.
        options = (
            *("--head", "--disable-usage-stats", f"--port={self.address.rsplit(':', 1)[1]}"),
            f"--dashboard-port={self.dashboard.rsplit(':', 1)[1]}",
            f"--dashboard-agent-listen-port={free_port()}",
        )
        head = started(lambda: self._start("head", num_cpus, labels, *options))
        self.environment["RAY_API_SERVER_ADDRESS"] = self.dashboard
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while subprocess.run(
            [*RAY, "job", "list"], env=self.environment, capture_output=True
        ).returncode:
            assert head.is_alive, "the head ended"
            assert time.monotonic() < deadline_s, "the head did not start"
            time.sleep(0.5)

    def start_worker(self, num_cpus: int = 1, labels: Mapping[str, str] | None = None) -> RayNode:
        """Returns before the node has joined."""
        name = f"worker-{len(self._nodes)}"
        return self._start(name, num_cpus, labels, f"--address={self.address}")

    def stop(self) -> None:
        stop_all(self._nodes)
        for node in self._nodes:
            if not node.has_started and (self._folder / node.name).exists():  # why it did not
                logs = self._log_dir / f"{node.name} did not start"
                ignored = shutil.ignore_patterns("sockets", "*.sock*")
                shutil.copytree(self._folder / node.name, logs, symlinks=True, ignore=ignored)
        for log in self._folder.glob("*.log"):
            shutil.move(log, self._log_dir)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(
        self, name: str, num_cpus: int, labels: Mapping[str, str] | None, *options: str
    ) -> RayNode:
        node = start_node(
            name,
            self._folder,
            *options,
            num_cpus=num_cpus,
            labels=labels,
            environment=self.environment,
        )
        self._nodes.append(node)
        return node


def run_job(
    nodes: RayNodes, *arguments: str, cwd: Path, timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """`python -m arguments` as a client of the cluster's jobs API."""
    environment = {k: v for k, v in nodes.environment.items() if k != "RAY_ADDRESS"}
    return subprocess.run(
        [str(BIN / "python"), "-m", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def job_details(nodes: RayNodes) -> list[dict[str, object]]:
    """All submitted jobs, as the jobs API tells it."""
    import urllib.request

    request = urllib.request.Request(
        f"{nodes.dashboard}/api/jobs/",
        headers={"Authorization": f"Bearer {nodes.environment['RAY_AUTH_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)
