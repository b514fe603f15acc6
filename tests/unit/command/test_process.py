"""One-line errors, exit codes and signals: what every command and job does when it cannot go on."""

from __future__ import annotations

import errno
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codepmp_ray.command import groups  # noqa: F401 - fills the registry
from codepmp_ray.command.process import find_known_error
from codepmp_ray.command.registry import COMMANDS
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import ConfigError, InputError, StorageError
from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


def run(job: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"jobs.{job}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_a_bad_recipe_stops_a_job_at_once_with_one_line() -> None:
    done = run("pipeline", "synthesis.clip_fracton=0.2", "engines.strong.min_actors=7")
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.count("\n") == 1, done.stderr
    for words in ("synthesis.clip_fracton", "clip_fraction?", "min_actors=7", "max_actors=1"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretraining.warmup_ratio=0.95", ["warmup_ratio=0.95", "exceed 1"]),
        ("engines.strong.min_actors=7", ["min_actors=7", "max_actors=1"]),
        ("corpus.min_lines=0", ["corpus.min_lines=0"]),
        ("corpus.source.kind=folder", ["source.path"]),
        ("evaluation.endpoint=ftp://x", ["ftp://x", "http://"]),
        ("name", ["section.key=value"]),
    ],
)
def test_bad_values_name_the_value_and_the_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("laptop", [override])
    assert all(word in str(caught.value) for word in words), caught.value


def test_sigterm_unwinds_a_job_and_ends_it_with_the_code_of_an_interruption() -> None:
    script = (
        "import time\nfrom codepmp_ray.command.process import run_command\n"
        "def body():\n"
        "    try:\n        print('up', flush=True); time.sleep(600)\n"
        "    finally:\n        print('cleaned up')\n"
        "run_command(body)"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert job.stdout and job.stdout.readline() == b"up\n"
    job.send_signal(signal.SIGTERM)
    output, errors = job.communicate(timeout=PATIENCE_S)
    assert (job.returncode, output) == (130, b"cleaned up\n")
    assert errors.startswith(b"Interrupted. Run the same command again to resume.")


def test_a_signal_while_ray_starts_is_an_interruption_too() -> None:
    """Ray's own handler, until it has started, exits with the signal's number."""
    script = (
        "import signal, sys\nfrom codepmp_ray.command.process import run_command\n"
        "def body():\n"
        "    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "run_command(body)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert done.returncode == 130 and done.stderr.startswith(b"Interrupted. Run the same command")


def test_overrides_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "some.args").write_text("corpus.min_lines=0\nengines.strong.min_actors=7\n")
    done = run("corpus", f"run_dir={tmp_path}", f"@{tmp_path}/some.args")
    assert done.returncode == ConfigError.exit_code
    assert "corpus.min_lines=0" in done.stderr and "min_actors=7" in done.stderr
    absent = run("corpus", f"@{tmp_path}/absent.args")
    assert absent.returncode == ConfigError.exit_code and "absent.args" in absent.stderr


def test_a_report_of_no_run_is_refused_and_of_a_run_without_stages_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first" / "corpus-0123456789ab").mkdir(parents=True)
    for name in ("report", "status"):
        with pytest.raises(InputError, match=r"/frist does not exist.*beside it: first\."):
            COMMANDS[name].body(load_recipe(None, [f"run_dir={tmp_path}/frist"]))
    assert not (tmp_path / "frist").exists()
    COMMANDS["report"].body(load_recipe(None, [f"run_dir={tmp_path}/first"]))
    assert f"Report: {tmp_path}/first/report.html" in capsys.readouterr().out
    assert (tmp_path / "first" / "report.html").exists()


def test_known_errors_are_found_below_what_ray_wraps_around_them() -> None:
    inner = InputError("a is bad.", "Do b.")
    wrapper = RuntimeError("actor failed")
    wrapper.cause = inner  # type: ignore[attr-defined]
    outer = ValueError("stage failed")
    outer.__cause__ = wrapper
    assert find_known_error(outer) is inner
    assert find_known_error(ValueError("other")) is None
    assert str(pickle.loads(pickle.dumps(inner))) == "a is bad. Do b."


def test_a_file_system_that_refuses_is_one_line() -> None:
    outer = RuntimeError("stage failed")
    outer.__cause__ = OSError(errno.EROFS, "Read-only file system", "/runs/x.lock")
    found = find_known_error(outer)
    assert isinstance(found, StorageError)
    assert str(found).startswith("/runs/x.lock: Read-only file system. Free disk space")
    assert find_known_error(FileNotFoundError(errno.ENOENT, "a bug", "/x")) is None


def test_known_errors_are_found_in_what_a_worker_s_traceback_says() -> None:
    text = (
        "ray::Map(_extract_task)() (pid=478, ip=127.0.0.1)\n"
        "OSError: [Errno 28] No space left on device\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "  File 'storage.py', line 119, in put\n"
        "codepmp_ray.errors.StorageError: Cannot write x: No space left. Free disk space.\n\n"
        "ray.exceptions.UserCodeException: UDF failed to process a data block.\n"
    )
    found = find_known_error(RuntimeError(text))
    assert isinstance(found, StorageError)
    assert str(found) == "Cannot write x: No space left. Free disk space."
    assert find_known_error(RuntimeError("codepmp_ray.errors.NoSuchError: x")) is None
    assert find_known_error(RuntimeError("codepmp_ray.errors.annotations: x")) is None
