"""`make test` as a newcomer has it: fresh clones below a folder with a space, an empty HOME.

Some runs are alone on the machine, some beside one busy loop. Only `make test` is timed, not the
set-up before it. Each run's outcome is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._results import COMMIT, conclude, options, series_result

ROOT = Path(__file__).resolve().parents[1]
GOAL_MINUTES = 12.0
_COUNTS = ("tests", "failures", "errors", "skipped")


def run_once(folder: Path, *, is_busy: bool) -> dict[str, Any]:
    """Clone, set up and test in `folder`, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    clone, report = folder / "a clone", folder / "report.xml"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    # Downloads are shared with the machine: a registry is not what is measured.
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    environment = {**os.environ, "HOME": str(folder / "home"), "UV_CACHE_DIR": cache}
    environment.pop("VIRTUAL_ENV", None)
    with open(folder / "log", "wb") as log:

        def make(*arguments: str) -> int:
            command = ["make", *arguments]
            return subprocess.run(
                command, cwd=clone, env=environment, stdout=log, stderr=log
            ).returncode

        if make("setup"):
            raise SystemExit(f"make setup failed: {folder / 'log'}")
        with _busy_loop(is_busy):
            start_s = time.monotonic()
            exit_code = make("test", f'ARGS=--junitxml="{report}"')
            minutes = (time.monotonic() - start_s) / 60
    found = {"minutes": round(minutes, 2), "is_busy": is_busy, "exit_code": exit_code}
    found |= {"commit": COMMIT, **_counts(report)}
    shutil.rmtree(clone)
    return found


@contextmanager
def _busy_loop(is_busy: bool) -> Iterator[None]:
    loop = multiprocessing.get_context("fork").Process(target=_spin, daemon=True)
    if is_busy:
        loop.start()
    try:
        yield
    finally:
        if is_busy:
            loop.kill()


def _spin() -> None:
    while True:
        pass


def _counts(report: Path) -> dict[str, Any]:
    """Of a JUnit report; a run that wrote none has failed as a whole."""
    if not report.exists():
        return {**dict.fromkeys(_COUNTS, 0), "errors": 1, "failed": ["no report"]}
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {name: int(suite.get(name, 0)) for name in _COUNTS} | {"failed": failed}


def results_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    quiet = [run["minutes"] for run in runs if not run["is_busy"]]
    bad = [run["failures"] + run["errors"] for run in runs]
    minutes = series_result("minutes", quiet, "min", f"<= {GOAL_MINUTES:.0f}", digits=2)
    failures = series_result("failures", [float(number) for number in bad], "tests", "0", digits=0)
    minutes |= {
        "minutes_beside_a_busy_loop": [run["minutes"] for run in runs if run["is_busy"]],
        "met": bool(quiet) and minutes["value"] <= GOAL_MINUTES,
    }
    failures |= {"value": sum(bad), "each_run": runs, "met": not any(bad)}
    return [minutes, failures]


def main() -> None:
    parser = options(
        __doc__, quiet=(4, "runs alone on the machine"), busy=(2, "runs beside one busy loop")
    )
    parser.add_argument("--folder", type=Path, required=True, help="new or of an earlier call")
    arguments = parser.parse_args()
    kept = arguments.folder / "runs.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for is_busy, wanted in ((False, arguments.quiet), (True, arguments.busy)):
        while sum(run["is_busy"] == is_busy for run in runs) < wanted:
            runs.append(run_once(arguments.folder / "a run", is_busy=is_busy))
            kept.write_text(json.dumps(runs, indent=2))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    conclude("test_suite", results_of(runs))


if __name__ == "__main__":
    main()
