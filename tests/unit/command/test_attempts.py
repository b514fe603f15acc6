"""What an attempt leaves in the run directory: its log, how it ended, and no credentials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from codepmp_ray import attempts
from codepmp_ray.analysis.status import print_status
from codepmp_ray.attempts import Attempt, last_attempt
from codepmp_ray.command.process import kept_attempt
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import EngineError

ROOT = Path(__file__).resolve().parents[3]


def read(run_dir: Path) -> tuple[dict[str, Any], str]:
    record = last_attempt(str(run_dir))
    assert record is not None
    return record, Path(record["log"]).read_text(encoding="utf-8") if record["log"] else ""


def shown(run_dir: Path) -> str:
    console = Console(record=True, width=200)
    print_status(parse_recipe({"run_dir": str(run_dir)}, "test"), console)
    return console.export_text()


def test_what_is_printed_is_kept_and_still_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = sys.stdout, sys.stderr
    with kept_attempt(str(tmp_path), "pairs make"):
        print("result")
        print("progress", file=sys.stderr)
        print("no newline", end="")
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr() == ("result\nno newline", "progress\n")
    record, log = read(tmp_path)
    assert log == "result\nprogress\nno newline\n"
    assert (record["command"], record["exit_code"], record["error"]) == ("pairs make", 0, None)
    assert record["ended"] >= record["began"]
    assert "pairs make on " in shown(tmp_path) and "with code 0; log: " in shown(tmp_path)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EngineError("It died.", "Look."), 7, "Error: It died. Look."),
        (KeyboardInterrupt(), 130, "Interrupted. Run the same command again to resume."),
        (LookupError("nobody foresaw it"), 1, "LookupError: nobody foresaw it"),
        (SystemExit(3), 3, None),
    ],
)
def test_how_it_ended_is_kept(
    tmp_path: Path, error: BaseException, code: int, line: str | None
) -> None:
    with pytest.raises(type(error)), kept_attempt(str(tmp_path), "corpus"):
        print("begun")
        raise error
    record, log = read(tmp_path)
    assert (record["exit_code"], record["error"]) == (code, line)
    assert log.startswith("begun\n") and (line or "") in log
    text = " ".join(shown(tmp_path).split())
    assert f"with code {code}" in text and (line or "") in text


def test_a_killed_attempt_has_a_log_and_no_end(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom codepmp_ray import attempts\n"
        "from codepmp_ray.command.process import kept_attempt\n"
        "attempts._WRITE_INTERVAL_S = 0.05\n"
        f"with kept_attempt({str(tmp_path)!r}, 'train pmp'):\n"
        "    print('step 1', flush=True)\n    time.sleep(600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not list(tmp_path.glob("logs/*.log")):
            assert child.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    record, log = read(tmp_path)
    assert log == "step 1\n" and record["ended"] is None and record["exit_code"] is None
    assert "no end recorded: it runs, or was killed" in shown(tmp_path)


def test_no_credential_of_a_url_is_kept_however_it_is_printed(tmp_path: Path) -> None:
    secret = "PASS-SECRET"
    with (
        pytest.raises(EngineError),
        kept_attempt(str(tmp_path), "corpus"),
    ):
        print(f"reading https://user:{secret}@host/x")
        sys.stdout.write("in parts: https://user:")
        sys.stdout.write(f"{secret}@host/y\n")
        print(f"at the end s3://bucket/x?token={secret}", end="")
        raise EngineError(f"https://user:{secret}@host/z does not answer.")
    for file in tmp_path.rglob("*.*"):
        assert secret not in file.read_text(), file
    assert "reading https://***@host/x" in read(tmp_path)[1]


def test_bars_are_left_out_and_colours_too(tmp_path: Path) -> None:
    attempt = Attempt(str(tmp_path), "run")
    for piece in ("\x1b[?25l", "\r\x1b[2Ksynthesis 1/4", "\x1b[1A\x1b[2K", "\x1b[1mbold\x1b[0m\n"):
        attempt.write(piece)
    attempt.end(0)
    assert read(tmp_path)[1] == "bold\n"


def test_of_a_long_log_beginning_and_end_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_HEAD_CHARS", 100)
    monkeypatch.setattr(attempts, "_TAIL_CHARS", 200)
    attempt = Attempt(str(tmp_path), "run")
    for number in range(1000):
        attempt.write(f"line {number}\n")
    attempt.end(0)
    log = read(tmp_path)[1]
    assert log.startswith("line 0\n") and log.endswith("line 999\n") and len(log) < 700
    assert "left out" in log


def test_a_run_directory_that_cannot_be_written_costs_no_attempt(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with kept_attempt(str(tmp_path / "file"), "corpus"):
        print("goes on")
    assert last_attempt(str(tmp_path / "none")) is None


def test_the_newest_record_that_can_be_read_is_the_last(tmp_path: Path) -> None:
    with kept_attempt(str(tmp_path), "corpus"):
        pass
    folder = tmp_path / "logs"
    (folder / "99990101T000000Z-corpus-abcd.json").write_text("{")
    (folder / "zz.json").write_text(json.dumps({"command": "foreign"}))
    assert read(tmp_path)[0]["command"] == "corpus"


SCRIPT = """
import os, sys
from codepmp_ray.cluster.own_terminal import own_terminal
from codepmp_ray.command.process import kept_attempt
with kept_attempt(sys.argv[1], "run"):
    print("before", file=sys.stderr)
    with own_terminal():
        os.write(2, b"of the core\\n")
        print("ours", file=sys.stderr)
        print("result")
    print("after", file=sys.stderr)
"""


def test_what_is_kept_from_the_terminal_is_no_obstacle(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "before\nours\nafter\n" and done.stdout == "result\n"
    assert read(tmp_path)[1] == "before\nours\nresult\nafter\n"
