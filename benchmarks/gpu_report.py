"""Every figure of this repository that needs a GPU, in one command: `make gpu-report`.

The tests that need one come first. Each benchmark is a process with a time limit of its own;
together they take at most 40 minutes. One that this commit has already measured on these GPUs is
not run again, so the command can be stopped and repeated. Results lie in results/gpu/, and stay
when one of them fails.

`--quick` (`make gpu-report QUICK=1`) is for a bare machine: the parts of gpu_quick.py, the most
important first, within 8 minutes and with what torch, transformers and accelerate bring along. What
a part leaves of its time goes to those after it.

    python -m benchmarks.gpu_report [--quick] [--again]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from benchmarks._results import COMMIT, gpu, options, results_path


@dataclass(frozen=True)
class Figure:
    """One benchmark, its arguments and how long it may take."""

    name: str
    arguments: tuple[str, ...]
    limit_s: int
    module: str = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module or f"benchmarks.{self.name}", *self.arguments]


FIGURES = (
    # A figure of a step that computes something else would say nothing.
    Figure("tests", ("-q", "-n", "6", "tests/gpu"), 300, "pytest"),
    Figure("train_mfu", (), 240),
    Figure("train_step_vs_trl", ("--rounds", "3", "--pairs", "64"), 240),
    Figure("train_step_vs_authors", ("--rounds", "3", "--pairs", "64"), 240),
    Figure("train_prefix_sharing", ("--rounds", "5", "--pairs", "32"), 180),
    Figure("train_memory_vs_trl", (), 180),
    Figure("train_memory_plan", ("--runs", "1"), 240),
    # A window has to be longer than the writing, or waiting for its end counts as lost.
    Figure("checkpoint_overhead", ("--rounds", "4", "--steps", "16"), 270),
    Figure("synthesis_engine_efficiency", ("--rows", "512"), 480),
)


QUICK_S = 8 * 60
# Seconds of each part; what is left over is for starting them and for ending the last one.
_QUICK_PARTS = {"exactness": 65, "steps": 115, "mfu": 75, "prefix": 45, "checkpoints": 70}
_QUICK_PARTS |= {"parity": 100}  # ends at once without vLLM
QUICK_FIGURES = tuple(
    Figure(f"quick_{part}", (part,), limit_s, "benchmarks.gpu_quick")
    for part, limit_s in _QUICK_PARTS.items()
)
_NEEDED = ("torch", "transformers", "accelerate")
# Of a quick part's limit; the rest is for imports and for what is under way.
_MEASURING_SHARE = 0.6

# What went through, and where: benchmarks write what they have as they go, so a file of results
# may be half of them.
_FINISHED = "gpu_report"


def is_measured(figure: Figure) -> bool:
    """Whether this commit's benchmark went through on these GPUs."""
    is_there = figure.module or results_path(figure.name).exists()
    return bool(is_there) and finished().get(figure.name) == [COMMIT, gpu()]


def finished() -> dict[str, list[str]]:
    path = results_path(_FINISHED).with_suffix(".finished")
    return json.loads(path.read_text()) if path.exists() else {}


def note_finished(figure: Figure) -> None:
    path = results_path(_FINISHED).with_suffix(".finished")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finished() | {figure.name: [COMMIT, gpu()]}, indent=2))


def with_time(figures: Sequence[Figure], number: int, left_s: float) -> Figure:
    """Figure `number` of the quick ones with all the time that those after it do not need."""
    figure, later = figures[number], figures[number + 1 :]
    limit_s = int(left_s - sum(other.limit_s for other in later))
    seconds = ("--seconds", str(int(limit_s * _MEASURING_SHARE)))
    return replace(figure, arguments=(*figure.arguments, *seconds), limit_s=limit_s)


def not_in_quick() -> list[str]:
    """What the quick report leaves out, by name, and why."""
    lines = []
    if find_spec("trl") is None:
        lines.append("TRL itself: not installed, its semantics on plain transformers stand in")
    lines.append("tests/gpu: they need the project's own environment")
    lines.append("train_memory_vs_trl, train_memory_plan: they take longer")
    vllm = "not installed" if find_spec("vllm") is None else "it takes longer"
    lines.append(f"synthesis_engine_efficiency (vLLM): {vllm}")
    return lines


def run(figure: Figure) -> str:
    """Run one benchmark; how it ended."""
    start_s = time.monotonic()
    # A session of its own, so that Ray and engines that it started can be ended with it.
    process = subprocess.Popen(figure.command, start_new_session=True)
    try:
        code = process.wait(figure.limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after {figure.limit_s} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took = f"{time.monotonic() - start_s:.0f} s"
    if code == 0:
        note_finished(figure)
    return f"measured in {took}" if code == 0 else f"failed (exit status {code}) after {took}"


def main() -> None:
    arguments = options(
        __doc__,
        again=(False, "measure what is measured, too"),
        quick=(False, "8 minutes, on a bare machine"),
    ).parse_args()
    start_s = time.monotonic()
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SystemExit(f"{sys.executable} has no {', '.join(missing)}: install what is missing.")
    if not gpu():
        raise SystemExit("No GPU that torch can use. These figures stay blank until one is there.")
    figures = QUICK_FIGURES if arguments.quick else FIGURES
    minutes = (QUICK_S if arguments.quick else sum(figure.limit_s for figure in FIGURES)) / 60
    print(
        f"{len(figures)} benchmarks on {gpu()}, at most {minutes:.0f} minutes; "
        f"needs {', '.join(_NEEDED)}",
        flush=True,
    )
    if arguments.quick:
        print(*(f"not run here: {line}" for line in not_in_quick()), sep="\n", flush=True)
    endings: dict[str, str] = {}
    for number, figure in enumerate(figures):
        if is_measured(figure) and not arguments.again:
            endings[figure.name] = "measured before"
            continue
        print(f"== {figure.name}", flush=True)
        if arguments.quick:
            left_s = QUICK_S - (time.monotonic() - start_s)
            figure = with_time(figures, number, left_s)
        endings[figure.name] = run(figure)
    for name, ending in endings.items():
        print(f"{name:32} {ending}")
    if any("measured" not in ending for ending in endings.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
