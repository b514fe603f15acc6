"""`make gpu-report`: within its time, resumable, and one failure is not the end of the rest."""

import ast
import json
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from benchmarks import _training, gpu_quick, gpu_report
from benchmarks.gpu_report import FIGURES, QUICK_FIGURES, Figure
from codepmp_ray.config.training import TrainingConfig
from tests.processes import PATIENCE_S, is_alive

pytestmark = pytest.mark.slow


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


def test_quick_is_the_most_important_first_and_within_eight_minutes() -> None:
    names = [figure.name.removeprefix("quick_") for figure in QUICK_FIGURES]
    parts = ["exactness", "steps", "mfu", "prefix", "checkpoints", "parity"]
    assert names == parts == list(gpu_quick.PARTS)
    assert sum(figure.limit_s for figure in QUICK_FIGURES) < gpu_report.QUICK_S == 480
    assert "trl" not in gpu_report._NEEDED


@pytest.mark.parametrize("took_share", [0.0, 0.5, 1.0])
def test_what_a_quick_part_leaves_goes_to_those_after_it_and_never_more(took_share: float) -> None:
    left_s, limits = float(gpu_report.QUICK_S), []
    for number, planned in enumerate(QUICK_FIGURES):
        figure = gpu_report.with_time(QUICK_FIGURES, number, left_s)
        assert planned.limit_s <= figure.limit_s <= left_s
        seconds = int(figure.command[figure.command.index("--seconds") + 1])
        assert 0 < seconds < figure.limit_s
        limits.append(figure.limit_s)
        left_s -= took_share * figure.limit_s
    assert left_s >= 0
    if took_share == 0.0:  # the last one has what all the others would have had
        assert limits[-1] == gpu_report.QUICK_S


@pytest.fixture
def quick(monkeypatch, tmp_path: Path) -> list[Figure]:
    """The quick report on a machine that says it has a GPU; the parts that were run."""
    started: list[Figure] = []

    def run(figure: Figure) -> str:
        started.append(figure)
        if figure.name == "quick_mfu":
            return "stopped after 90 s"
        gpu_report.note_finished(figure)
        return "measured in 1 s"

    monkeypatch.setattr(gpu_report, "gpu", lambda: "1 x H200")
    monkeypatch.setattr(gpu_report, "results_path", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(gpu_report, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu_report", "--quick"])
    return started


def test_quick_goes_on_after_a_part_out_of_time_and_repeats_only_that(quick, capsys) -> None:
    with pytest.raises(SystemExit):
        gpu_report.main()
    assert [figure.name for figure in quick] == [figure.name for figure in QUICK_FIGURES]
    told = capsys.readouterr().out
    first, *rest = told.splitlines()
    assert "torch, transformers, accelerate" in first and "at most 8 minutes" in first
    left_out = [line for line in rest if line.startswith("not run here: ")]
    for name in ("tests/gpu", "train_memory_vs_trl", "synthesis_engine_efficiency"):
        assert any(name in line for line in left_out)
    quick.clear()
    with pytest.raises(SystemExit):
        gpu_report.main()
    assert [figure.name for figure in quick] == ["quick_mfu"]
    assert quick[0].limit_s > 250  # all the time that the others would have had before it


def test_quick_names_what_it_cannot_do_without(quick, monkeypatch) -> None:
    monkeypatch.setattr(gpu_report, "find_spec", lambda name: None if name == "accelerate" else 1)
    with pytest.raises(SystemExit, match="has no accelerate"):
        gpu_report.main()
    assert quick == []


def test_a_step_without_pydantic_has_the_trainers_own_settings() -> None:
    config = TrainingConfig()
    for name, value in _training.STEP_SETTINGS.items():
        assert getattr(config, name) == value, name
    package = Path(gpu_report.__file__).parent.parent / "codepmp_ray" / "training"
    read = {
        found
        for file in ("step", "fsdp", "optimizer", "compiling")
        for found in re.findall(r"\bconfig\.(\w+)", (package / f"{file}.py").read_text())
    }
    assert read - {"training"} <= set(_training.STEP_SETTINGS)


def bare_site_packages(folder: Path, *wanted: str) -> Path:
    """A folder with links to the packages and to what they need, as pip would install them.

    But for pydantic, which only some versions of the command lines among them bring along.
    """
    from packaging.requirements import Requirement

    waiting, seen = list(wanted), {"pydantic"}
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        for text in found.requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder


_BARE = """
import sys
sys.path[:0] = sys.argv[1:3]
for name in ("pydantic", "pyarrow", "ray", "vllm", "trl", "datasets", "fastapi"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is here: this is no bare machine")
import benchmarks.gpu_report
from benchmarks import gpu_quick
for part in sys.argv[3].split():
    print("PART", part, flush=True)
    sys.argv[:] = ["gpu_quick", part, "--tiny", "--seconds", "0"]
    gpu_quick.main()
"""


@pytest.mark.slow  # seconds for a part
@pytest.mark.parametrize(
    "asked", [["exactness"], pytest.param(list(gpu_quick.PARTS), marks=pytest.mark.rehearsal)]
)
def test_every_quick_part_runs_with_torch_transformers_and_accelerate_alone(
    tmp_path: Path, asked: list[str]
) -> None:
    site = bare_site_packages(tmp_path, "torch", "transformers", "accelerate", "numpy")
    root = Path(gpu_report.__file__).parent.parent
    # -I and -S: no site-packages, no PYTHONPATH.
    command = [sys.executable, "-I", "-S", "-c", _BARE, str(site), str(root), " ".join(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = {}
    for text in done.stdout.split("PART ")[1:]:
        name, _, printed = text.partition("\n")
        rows = [ast.literal_eval(line) for line in printed.splitlines() if line.startswith("{")]
        parts[name] = {row["metric"]: row["value"] for row in rows}
    assert list(parts) == asked
    assert parts["exactness"]["loss_off_plain_fp64"] < 1e-5
    assert parts["exactness"]["gradients_off_plain_fp64"] < 1e-3
    if asked == ["exactness"]:
        return
    assert {"our_pmp_over_trl_semantics_rm", "our_pmp_over_authors_pmp"} <= set(parts["steps"])
    assert {"mfu", "tokens_per_s"} <= set(parts["mfu"])
    assert "share_of_token_ratio" in parts["prefix"]
    assert {"synchronous_write", "restore", "lost_over_synchronous"} <= set(parts["checkpoints"])
