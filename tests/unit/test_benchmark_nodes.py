"""A node of the cluster benchmarks ends with everything that belongs to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._ray_nodes import RayNode, started
from tests.processes import PATIENCE_S, is_alive


def node_of(folder: Path, script: str) -> RayNode:
    """A shell in the place of `ray start`."""
    log = folder / "node.log"
    with open(log, "ab") as file:
        process = subprocess.Popen(["sh", "-c", script], stdout=file, start_new_session=True)
    return RayNode("node", process, log)


def test_a_kill_reaches_what_a_start_that_failed_has_left(tmp_path: Path) -> None:
    node = node_of(tmp_path, "sleep 100 & echo $!; exit 1")
    assert node.process.wait(PATIENCE_S) == 1
    left = int(node.log.read_text())
    assert [process.pid for process in node.processes()] == [left] and is_alive(left)
    node.kill()
    assert not is_alive(left)


def test_a_start_that_fails_is_tried_again_but_not_forever(tmp_path: Path) -> None:
    count = tmp_path / "count"
    fails_once = f"echo >> '{count}'; [ $(wc -l < '{count}') -lt 2 ] && exit 1; {{}}"
    up = "echo Ray runtime started; exec sleep 100"
    node = started(lambda: node_of(tmp_path, fails_once.format(up)))
    assert node.is_alive and node.has_started
    node.kill()
    node.log.unlink()
    with pytest.raises(RuntimeError, match="node did not start: no memory"):
        started(lambda: node_of(tmp_path, "echo no memory; exit 1"))


ROOT = Path(__file__).resolve().parents[2]


def test_a_host_that_is_cut_off_is_silent_until_it_is_connected_again() -> None:
    command = [sys.executable, "-m", "tests.two_hosts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    if "cannot have them" in done.stderr:
        pytest.skip(f"make test-cluster would not run here either: {done.stderr.strip()}")
    assert done.returncode == 5, done.stderr  # the inner command's own exit code
    assert json.loads(done.stdout) == ["hello", "TimeoutError", "hello"]
