"""Every figure of this repository that needs a GPU, in one command: `make gpu-report`.

The tests that need one come first. Each benchmark is a process with a time limit of its own;
together they take at most 40 minutes. One that this commit has already measured on these GPUs is
not run again, so the command can be stopped and repeated. Results lie in results/gpu/, and stay
when one of them fails.

    python -m benchmarks.gpu_report [--again]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks._results import COMMIT, gpu, results_path


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure what is measured, too")
    arguments = parser.parse_args()
    if not gpu():
        raise SystemExit("No GPU that torch can use. These figures stay blank until one is there.")
    minutes = sum(figure.limit_s for figure in FIGURES) / 60
    print(f"{len(FIGURES)} benchmarks on {gpu()}, at most {minutes:.0f} minutes", flush=True)
    endings: dict[str, str] = {}
    for figure in FIGURES:
        if is_measured(figure) and not arguments.again:
            endings[figure.name] = "measured before"
            continue
        print(f"== {figure.name}", flush=True)
        endings[figure.name] = run(figure)
    for name, ending in endings.items():
        print(f"{name:32} {ending}")
    if any("measured" not in ending for ending in endings.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
