"""Progress without a terminal: lines with rate and ETA, never too many."""

from __future__ import annotations

import sys
import time

import pytest

from codepmp_ray import progress as module
from codepmp_ray.progress import Progress
from tests.processes import PATIENCE_S


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_lines_show_count_time_eta_and_note(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("synthesis", 10, "shards") as progress:
        clock.now_s += 20
        progress.update(4, "1.2 rows/s")
    assert _lines(capsys) == [
        "synthesis: 10 shards",
        "synthesis: 4/10 shards, 20 s, ETA 30 s, 1.2 rows/s",
        "synthesis: 4/10 shards, 20 s, ETA 30 s, 1.2 rows/s",
    ]


def test_work_of_an_earlier_run_does_not_count_towards_the_rate(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("corpus", 100, "files", done=90) as progress:
        clock.now_s += 10
        progress.update(95)
    lines = _lines(capsys)
    assert lines[0] == "corpus: 100 files (90 done before)"
    # 5 files in 10 s, 5 left; counting the 90 would claim half a second.
    assert lines[1] == "corpus: 95/100 files, 10 s, ETA 10 s"


def test_without_any_progress_the_eta_is_unknown(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("corpus", 10, "files") as progress:
        clock.now_s += 10
        progress.update(0)
    assert _lines(capsys)[1] == "corpus: 0/10 files, 10 s, ETA unknown"


def test_updates_between_two_intervals_print_nothing(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("grading", 1_000, "answers", line_interval_s=10) as progress:
        for done in range(1, 1_000):
            clock.now_s += 0.1
            progress.update(done)
    assert 10 <= len(_lines(capsys)) <= 13


def test_the_end_is_said_once_and_a_failure_is_not_called_an_end(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("corpus", 2, "files") as progress:
        clock.now_s += 60
        progress.update(2)
    assert _lines(capsys) == ["corpus: 2 files", "corpus: 2/2 files, 60 s"]
    with pytest.raises(KeyError), Progress("corpus", 2, "files"):
        raise KeyError
    assert _lines(capsys) == ["corpus: 2 files"]


def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("training", 4, "steps") as progress:
        progress.update(4, "loss 0.69")
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "4/4" in shown
    assert "loss 0.69" in shown


def test_time_before_the_first_units_is_not_extrapolated(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """An engine that needs 60 s to start and then 10 s a shard: 7 shards left are 70 s."""
    with Progress("synthesis", 10, "shards") as progress:
        clock.now_s += 70
        progress.update(1)
        clock.now_s += 20
        progress.update(3)
        last = _lines(capsys)[-1]
    assert last == "synthesis: 3/10 shards, 90 s, ETA 70 s"


def test_the_rate_is_measured_anew_when_work_was_lost(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resume shows first what the killed run had logged, then goes back to the checkpoint."""
    with Progress("pretraining", 200, "steps", done=150) as progress:
        clock.now_s += 100
        progress.update(100)
        clock.now_s += 5
        progress.update(101)
        clock.now_s += 20
        progress.update(111)
    lines = _lines(capsys)
    assert "ETA unknown" in lines[1]
    assert "111/200" in lines[2] and "ETA 178 s" in lines[2]  # 89 steps of 2 s


def test_a_line_comes_also_while_nothing_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("synthesis", 10, "shards", silence_s=0.05):
        deadline_s = time.monotonic() + PATIENCE_S
        lines = _lines(capsys)
        while len(lines) < 3 and time.monotonic() < deadline_s:
            time.sleep(0.02)
            lines += _lines(capsys)
    assert lines[0] == "synthesis: 10 shards"
    assert lines[1].startswith("synthesis: 0/10 shards, 0 s, ETA unknown")
    _lines(capsys)
    time.sleep(0.2)
    assert _lines(capsys) == []  # and none after the end
