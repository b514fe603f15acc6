"""`ray job submit` against a cluster of its own process group, with token authentication."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codepmp_ray.cluster.space_free import path_without_separators

ROOT = Path(__file__).resolve().parents[2]
# `ray start` cannot start jobs with an interpreter whose path has a space; seen through a link it
# has none.
BIN = path_without_separators(Path(sys.prefix)) / "bin"
RAY = [str(BIN / "python"), "-m", "ray.scripts.scripts"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node with token authentication; yields the environment of a client."""
    dashboard = f"http://127.0.0.1:{free_port()}"
    environment = {
        **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        # The entry point's `python` is the one that the head's PATH names.
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # When told to stop, stop: nobody waits for what this node still serves.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    # A short path of its own: sockets lie below it, and their paths are bounded.
    session_dir = f"/tmp/cpr-{os.getpid()}"
    command = [*RAY, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--port={free_port()}"]
    command += [f"--dashboard-port={dashboard.rsplit(':', 1)[1]}", f"--temp-dir={session_dir}"]
    # The job agent's own port is fixed unless said otherwise, and another test's Ray may have it.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    with open(tmp_path_factory.mktemp("head") / "head.log", "wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    client = {**environment, "RAY_API_SERVER_ADDRESS": dashboard}
    try:
        deadline_s = time.monotonic() + 60
        while subprocess.run([*RAY, "job", "list"], env=client, capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline_s, "head did not start"
            time.sleep(1)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)  # --block stops the node's processes
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def submit(client: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    deadline_s = time.monotonic() + 30
    while True:
        done = subprocess.run(
            [*RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", *command],
            cwd=ROOT,
            env=client,
            capture_output=True,
            text=True,
            timeout=120,
        )
        # The head answers before its job agent has registered.
        if "No available agent" not in done.stderr or time.monotonic() > deadline_s:
            return done
        time.sleep(1)


def test_a_submitted_job_joins_the_cluster_and_does_its_work(
    head: dict[str, str], tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("def f(x):\n    y = x + 1\n    y += 2\n    return y\n")
    done = submit(
        head,
        "jobs.corpus",
        f"run_dir={tmp_path}/run",
        "corpus.source.kind=folder",
        f"corpus.source.path={code}",
        "corpus.source.license=MIT",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "1 snippets" in done.stdout
    assert list((tmp_path / "run").glob("corpus-*/complete.json"))


def test_a_job_that_fails_says_why_and_fails_the_submission(head: dict[str, str]) -> None:
    done = submit(head, "jobs.corpus", "corpus.min_lines=0")
    assert done.returncode != 0
    assert "corpus.min_lines=0" in done.stdout + done.stderr


def test_a_client_without_the_token_is_turned_away(head: dict[str, str]) -> None:
    stranger = {**head, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = submit(stranger, "jobs.corpus")
    assert done.returncode != 0 and "complete.json" not in done.stdout
    assert "authentication" in done.stderr.lower()
