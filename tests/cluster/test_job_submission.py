"""Jobs submitted to a cluster of their own: `ray job submit`, `jobs.submit`, tokens, exit codes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks._fake_synthesis import write_fake_corpus
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import ConfigError, ResourceError, StorageError
from tests.processes import PATIENCE_S
from tests.ray_nodes import BIN, RAY, RayNodes, job_details, run_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    """A head node with token authentication."""
    nodes = RayNodes(tmp_path_factory.mktemp("head"), RAY_JOB_STOP_WAIT_TIME_S="20")
    try:
        nodes.start_head()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture(scope="module")
def head(nodes: RayNodes) -> dict[str, str]:
    """The environment of a client."""
    return nodes.environment


@pytest.fixture
def corpus_arguments(tmp_path: Path) -> list[str]:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("def f(x):\n    y = x + 1\n    y += 2\n    return y\n")
    return [
        f"run_dir={tmp_path}/run",
        "corpus.source.kind=folder",
        f"corpus.source.path={code}",
        "corpus.source.license=MIT",
    ]


def submit(client: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(
            [*RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", *command],
            cwd=ROOT,
            env=client,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        # The head answers before its job agent has registered.
        if "No available agent" not in done.stderr or time.monotonic() > deadline_s:
            return done
        time.sleep(1)


@pytest.mark.rehearsal
def test_a_submitted_job_joins_the_cluster_and_does_its_work(
    head: dict[str, str], corpus_arguments: list[str], tmp_path: Path
) -> None:
    done = submit(head, "jobs.corpus", *corpus_arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "1 snippets" in done.stdout
    assert list((tmp_path / "run").glob("corpus-*/complete.json"))


@pytest.mark.rehearsal
def test_a_client_without_the_token_is_turned_away(head: dict[str, str]) -> None:
    stranger = {**head, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = submit(stranger, "jobs.corpus")
    assert done.returncode != 0 and "complete.json" not in done.stdout
    assert "authentication" in done.stderr.lower()


@pytest.mark.rehearsal
def test_our_client_submits_once_follows_and_starts_a_failed_job_again(
    nodes: RayNodes, corpus_arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file where the run's folder should be")
    first = run_job(nodes, "jobs.submit", "corpus", *corpus_arguments, cwd=ROOT)
    assert first.returncode == StorageError.exit_code, first.stderr  # the job's own code
    assert "Error:" in first.stdout  # its log
    assert f"exit code {StorageError.exit_code}" in first.stderr
    (tmp_path / "run").unlink()
    second = run_job(nodes, "jobs.submit", "corpus", *corpus_arguments, cwd=ROOT)
    assert second.returncode == 0, second.stderr + second.stdout
    assert "1 snippets" in second.stdout and "Submitted corpus-" in second.stderr
    # Only what is ours is said beside the log: which submission it is, and how it ended.
    told = [line for line in second.stderr.splitlines() if line.strip()]
    assert all(line.startswith(("Submitted corpus-", "corpus-")) for line in told), told
    noise = re.compile(r"network_util|logging\.cc|sdk\.py|WebSocket")
    assert not noise.search(second.stdout + second.stderr), second.stdout
    third = run_job(nodes, "jobs.submit", "corpus", *corpus_arguments, cwd=ROOT)
    assert third.returncode == 0 and third.stdout == second.stdout
    assert "Following corpus-" in third.stderr
    named = next(line.split()[1] for line in third.stderr.splitlines() if "Following" in line)
    base = named.rpartition("-")[0]
    attempts = {str(job["submission_id"]): job["status"] for job in job_details(nodes)}
    ours = {name: status for name, status in attempts.items() if name.startswith(base)}
    assert ours == {f"{base}-1": "FAILED", f"{base}-2": "SUCCEEDED"}
    # What it made is gone: Ray's table alone is no answer.
    shutil.rmtree(tmp_path / "run")
    fourth = run_job(nodes, "jobs.submit", "corpus", *corpus_arguments, cwd=ROOT)
    assert f"Submitted {base}-3" in fourth.stderr and "1 snippets" in fourth.stdout
    assert list((tmp_path / "run").glob("corpus-*/complete.json"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes made in this test heed SIGINT; those of a background job inherit to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.rehearsal
def test_ctrl_c_leaves_the_job_running_and_with_stop_it_ends_in_order(
    interruptible: None, nodes: RayNodes, tmp_path: Path
) -> None:
    """Both on one job that waits: the first client detaches, the second stops it."""
    overrides = [f"run_dir={tmp_path}/run"]
    for role in ("strong", "weak"):
        overrides += [f"engines.{role}.kind=fake", f"engines.{role}.num_cpus=0.5"]
        overrides += [f"engines.{role}.engine_args={{latency_s: 300}}"]
    write_fake_corpus(load_recipe(ROOT / "jobs/recipes/laptop.yaml", overrides), 1, 1)
    for options, said in (([], "runs on"), (["--stop"], "Stopping synthesize-")):
        client = subprocess.Popen(
            [str(BIN / "python"), "-m", "jobs.submit", *options, "synthesize", *overrides],
            cwd=ROOT,
            env=nodes.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        lines = iter(client.stdout.readline, "")
        assert any("synthesis: 1 shards" in line for line in lines)
        client.send_signal(signal.SIGINT)
        _, errors = client.communicate(timeout=PATIENCE_S)
        assert client.returncode == 130 and said in errors
    deadline_s = time.monotonic() + PATIENCE_S
    while (job := _latest(nodes, "synthesize-"))["status"] == "RUNNING":
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    assert job["status"] == "STOPPED"
    command = [*RAY, "job", "logs", str(job["submission_id"])]
    log = subprocess.run(command, env=nodes.environment, capture_output=True, text=True)
    assert "Interrupted. Run the same command again" in log.stdout  # it heard SIGTERM


def _latest(nodes: RayNodes, prefix: str) -> dict[str, object]:
    jobs = [job for job in job_details(nodes) if str(job["submission_id"]).startswith(prefix)]
    assert len(jobs) == 1
    return jobs[0]


@pytest.mark.rehearsal
def test_the_token_s_absence_is_one_line(nodes: RayNodes, tmp_path: Path) -> None:
    environment = {**nodes.environment, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = subprocess.run(
        [str(BIN / "python"), "-m", "jobs.submit", "corpus", f"run_dir={tmp_path}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == ResourceError.exit_code
    assert done.stderr.startswith("Error: ") and "RAY_AUTH_TOKEN" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "a=b"], ["'nothing' is not a job", "synthesize"]),
        (["corpus"], ["run_dir=runs/laptop is relative", "s3://"]),
        (["corpus", "run_dir=/x", "corpus.min_lines=0"], ["corpus.min_lines=0"]),
        (["synthesize", "-c", "qwen2-1.5b-math", "run_dir=/x"], ["source.path=data/the-stack is"]),
        (["reproduce", "run_dir=/x", "data_dir=data"], ["data_dir=data is relative", "/mnt/..."]),
        (["study", "corpus.min_lines=1", "run_dir=/x"], ["unknown key corpus"]),
        (["serve", "./model"], ["MODEL=./model is relative"]),
        (["pool", "--output", "p.jsonl", "run_dir=/x"], ["--output=p.jsonl is relative"]),
    ],
)
def test_what_cannot_work_is_refused_before_a_cluster_is_asked(
    arguments: list[str], words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.submit", *arguments],
        cwd=ROOT,
        env={**os.environ, "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == ConfigError.exit_code
    assert all(word in done.stderr for word in words), done.stderr
