"""Writing what a benchmark measured, with what one needs to judge it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from codepmp_ray.runs import git_commit

RESULTS = Path(__file__).resolve().parent / "results"


def write_results(name: str, results: list[dict]) -> Path:
    """Write `results/<name>.json`: each result with command, commit, hardware and date.

    A result has metric, value, unit, goal, spread and runs; what it has already is not replaced.
    """
    common: dict[str, Any] = {
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": git_commit(),
        "hardware": hardware(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([common | result for result in results], indent=2) + "\n")
    return path


def hardware() -> str:
    """Processor, number of cores and memory of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB"
