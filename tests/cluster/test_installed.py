"""A job and a service from the checkout, from an unpacked wheel elsewhere, and submitted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks._results import free_port
from tests.processes import PATIENCE_S, wait_until
from tests.ray_nodes import RAY, RayNodes
from tests.tiny_models import save_tiny_reward_model
from tests.wheels import ROOT, unpacked_wheel

pytestmark = pytest.mark.rehearsal
KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("models") / "rm")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def code(tmp_path: Path) -> list[str]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "a.py").write_text("def f(x):\n    y = x + 1\n    y += 2\n    return y\n")
    source = {"kind": "folder", "path": str(folder), "license": "MIT"}
    return [f"run_dir={tmp_path}/run", *(f"corpus.source.{k}={v}" for k, v in source.items())]


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return json.load(answer) == {"status": "ready"}
    except OSError:
        return False


def best_of(port: int) -> int:
    body = {"prompt": "p", "candidates": ["a", "b", "c"]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/bon",
        json.dumps(body).encode(),
        {"x-api-key": KEY, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)["best_index"]


@contextmanager
def serving(command: list[str], cwd: Path, log: Path, **environment: str) -> Iterator[None]:
    """A service in a process of its own, ended by SIGTERM."""
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**own, "CODEPMP_API_KEY": KEY, **environment},
            stdout=file,
            stderr=file,
        )
        try:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("origin", ["checkout", "wheel"])
def test_a_job_and_a_service_run(
    origin: str, site: Path, model: Path, code: list[str], tmp_path: Path
) -> None:
    place, cwd = (ROOT, ROOT) if origin == "checkout" else (site, tmp_path)
    job = ["-m", "jobs.corpus"] if origin == "checkout" else ["-m", "codepmp_ray.command", "corpus"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, *job, *code],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "run").glob("corpus-*/complete.json")
    assert json.loads(manifest.read_text())["num_snippets"] == 1
    port = free_port()
    command = [sys.executable, "-m", "codepmp_ray.command", "serve", str(model)]
    command += [f"serving.port={port}", "serving.num_cpus=0.5", "serving.engine=torch"]
    log = tmp_path / "serve.log"
    with serving(command, cwd, log, PYTHONPATH=str(place)):
        # What it prints comes after it has answered; a signal before that is an interruption.
        wait_until(lambda: f":{port} (Ctrl-C" in log.read_text(), log.read_text, poll_s=0.5)
        assert is_ready(port) and best_of(port) in range(3)


def test_a_submitted_job_and_a_submitted_service_run(
    model: Path, code: list[str], tmp_path: Path
) -> None:
    nodes = RayNodes(tmp_path, RAY_JOB_STOP_WAIT_TIME_S="60", CODEPMP_API_KEY=KEY)
    port = free_port()

    def submit(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RAY, "job", *words], cwd=ROOT, env=nodes.environment, capture_output=True, text=True,
            timeout=PATIENCE_S,
        )  # fmt: skip

    try:
        nodes.start_head()
        give_up_s = time.monotonic() + PATIENCE_S
        upload = ("submit", "--working-dir", ".")
        while True:
            done = submit(*upload, "--", "python", "-m", "jobs.corpus", *code)
            # The head answers before its job agent has registered.
            if "No available agent" not in done.stderr or time.monotonic() > give_up_s:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        assert list((tmp_path / "run").glob("corpus-*/complete.json"))
        words = ["python", "-m", "jobs.serve", f"serving.model_path={model}"]
        words += [f"serving.port={port}", "serving.num_cpus=0.5", "serving.engine=torch"]
        words += ["serving.max_model_len=256"]
        done = submit(*upload, "--no-wait", "--submission-id", "service", "--", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: is_ready(port), lambda: submit("logs", "service").stdout, poll_s=1)
        assert best_of(port) in range(3)
        assert submit("stop", "service").returncode == 0
        wait_until(lambda: not is_ready(port), poll_s=0.5)
    finally:
        nodes.stop()
