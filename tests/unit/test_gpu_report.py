"""`make gpu-report`: within its time, resumable, and one failure is not the end of the rest."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_report
from benchmarks.gpu_report import FIGURES, Figure
from tests.processes import PATIENCE_S, is_alive


@pytest.fixture
def three(monkeypatch, tmp_path: Path) -> list[str]:
    """Three figures on a machine that says it has a GPU; the list of those that were run."""
    started: list[str] = []

    def run(figure: Figure) -> str:
        started.append(figure.name)
        return "failed (exit status 1) after 1 s" if figure.name == "a" else "measured in 1 s"

    monkeypatch.setattr(gpu_report, "FIGURES", tuple(Figure(name, (), 1) for name in "abc"))
    monkeypatch.setattr(gpu_report, "gpu", lambda: "1 x H200")
    monkeypatch.setattr(gpu_report, "results_path", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(gpu_report, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu_report"])
    return started


def measured(folder: Path, **by_name: tuple[str | None, str]) -> None:
    (folder / "gpu_report.finished").write_text(json.dumps(by_name))
    for name in by_name:
        (folder / f"{name}.json").write_text("[]")


def test_all_figures_fit_into_forty_minutes_and_exist() -> None:
    assert sum(figure.limit_s for figure in FIGURES) <= 40 * 60
    tests, *benchmarks = FIGURES
    assert Path(tests.command[-1]).is_dir()
    for figure in benchmarks:
        assert (Path(gpu_report.__file__).parent / f"{figure.name}.py").is_file()


def test_what_this_commit_has_measured_here_is_not_measured_again(three, tmp_path: Path) -> None:
    measured(tmp_path, b=(gpu_report.COMMIT, "1 x H200"), c=(gpu_report.COMMIT, "1 x A100"))
    with pytest.raises(SystemExit):  # a fails, the others are run all the same
        gpu_report.main()
    assert three == ["a", "c"]


def test_what_another_commit_has_measured_is(three, tmp_path: Path) -> None:
    measured(tmp_path, b=("0" * 40, "1 x H200"))
    with pytest.raises(SystemExit):
        gpu_report.main()
    assert three == ["a", "b", "c"]


def test_half_of_a_figure_is_not_measured(monkeypatch, tmp_path: Path) -> None:
    """Benchmarks write results as they go; one that fails or is stopped has to run again."""
    monkeypatch.setattr(gpu_report, "gpu", lambda: "1 x H200")
    monkeypatch.setattr(gpu_report, "results_path", lambda name: tmp_path / "gpu" / f"{name}.json")
    code = "import sys; sys.exit(int(sys.argv[1]))"
    monkeypatch.setattr(
        Figure, "command", property(lambda self: [sys.executable, "-c", code, *self.arguments])
    )
    half, whole = Figure("half", ("1",), 20), Figure("whole", ("0",), 20)
    assert gpu_report.run(half).startswith("failed")
    assert gpu_report.run(whole).startswith("measured")
    assert not gpu_report.is_measured(whole)  # it has left no results
    for name in ("half", "whole"):
        (tmp_path / "gpu" / f"{name}.json").write_text("[]")
    assert not gpu_report.is_measured(half)
    assert gpu_report.is_measured(whole)


def test_a_figure_out_of_time_is_ended_with_its_children(monkeypatch, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = (
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.setattr(Figure, "command", [sys.executable, "-c", code])
    assert gpu_report.run(Figure("slow", (), 2)) == "stopped after 2 s"
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(int(pid_file.read_text()))


def test_without_a_gpu_it_says_so(monkeypatch) -> None:
    monkeypatch.setattr(gpu_report, "gpu", lambda: "")
    monkeypatch.setattr(sys, "argv", ["gpu_report"])
    with pytest.raises(SystemExit, match="No GPU"):
        gpu_report.main()
