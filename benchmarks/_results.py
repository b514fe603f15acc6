"""The form of every result file: what was measured, how often, on what, from which commit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codepmp_ray.versions import git_commit

RESULTS = Path(__file__).parent / "results"
CGROUPS = Path("/sys/fs/cgroup")
# Read when the run begins: the tree may have moved on when it ends.
COMMIT = git_commit()
REQUIRED = ("metric", "value", "unit", "goal", "spread", "runs")


def options(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser of `--NAME VALUE` for each default, of its type; False is a flag.

    A default with what it means is a pair, (default, help).
    """
    parser = argparse.ArgumentParser(description=doc)
    for name, given in defaults.items():
        default, meaning = given if isinstance(given, tuple) else (given, None)
        kind = {"action": "store_true"} if default is False else {"type": type(default)}
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default=default, help=meaning, **kind)
    return parser


def one_result(
    metric: str, value: Any, unit: str, goal: Any = None, **context: Any
) -> dict[str, Any]:
    """What one run counted or took: it has no spread, unless `context` says so."""
    plain = {"metric": metric, "value": value, "unit": unit, "goal": goal}
    return {**plain, "spread": None, "runs": 1, **context}


def series_result(
    metric: str,
    values: list[float],
    unit: str,
    goal: str | None = None,
    *,
    digits: int = 3,
    **context: Any,
) -> dict[str, Any]:
    """The median of what the runs gave, with their range; without values, a blank figure."""
    return {
        "metric": metric,
        "value": round(statistics.median(values), digits) if values else None,
        "unit": unit,
        "goal": goal,
        "spread": [round(min(values), digits), round(max(values), digits)] if values else None,
        "runs": len(values),
        **context,
    }


def write_results(name: str, results: list[dict[str, Any]]) -> Path:
    """Write `results` (each with the REQUIRED keys) to `results_path(name)` and print them.

    `spread` is the range or deviation over `runs` repetitions in words or numbers, or null for a
    count. Command, commit, hardware and date are added where a result does not give its own.
    """
    for result in results:
        if missing := [key for key in REQUIRED if key not in result]:
            raise ValueError(f"{result.get('metric')}: no {', '.join(missing)}")
    context = {
        "command": " ".join(["python -m", f"benchmarks.{name}", *map(_nameless, sys.argv[1:])]),
        "commit": COMMIT,
        "hardware": hardware(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    path = results_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([context | result for result in results], indent=2) + "\n")
    for result in results:
        goal = "" if result["goal"] is None else f" (goal {result['goal']})"
        print(f"{result['metric']}: {result['value']} {result['unit']}{goal}")
    return path


def write_beside(name: str, results: list[dict[str, Any]], key: str) -> None:
    """`write_results` that keeps what the file has with another value of `key`: of measurements
    that take one command for each."""
    path = results_path(name)
    others = json.loads(path.read_text()) if path.exists() else []
    ours = {result[key] for result in results}
    kept = [result for result in others if result[key] not in ours]
    write_results(name, results)
    path.write_text(json.dumps([*kept, *json.loads(path.read_text())], indent=2) + "\n")


def conclude(name: str, results: list[dict[str, Any]]) -> None:
    """Write the results, and end the process with 1 when one says that its goal is not `met`."""
    write_results(name, results)
    if missed := [result["metric"] for result in results if not result.get("met", True)]:
        raise SystemExit(f"Not met: {', '.join(missed)}")


def results_path(name: str) -> Path:
    """Results of a GPU lie beside those of the CPU, not over them."""
    return RESULTS / "gpu" / f"{name}.json" if gpu() else RESULTS / f"{name}.json"


def require_memory(needed: float, smaller: Iterable[tuple[str, float]] = ()) -> None:
    """End the process, before anything is loaded, where `needed` bytes are not available.

    A run that asks for more is killed without a word, sometimes with others on the machine. Where
    there is a GPU nothing is asked: its allocator refuses by itself, and says the sizes.

    Args:
        smaller: (options as they are typed, bytes they need), the largest first; read no further
            than the first one that fits, which the message names.
    """
    if gpu() or needed <= (available := available_bytes()):
        return
    fitting = next((options for options, need in smaller if need <= available), None)
    remedy = f"the most that fits is {fitting}" if fitting else "nothing smaller fits either"
    raise SystemExit(
        f"This run needs about {needed / 2**30:.1f} GiB of memory and {available / 2**30:.1f} GiB "
        f"are available: {remedy}."
    )


def available_bytes() -> int:
    """Memory that this process can still take: of the machine, or of its cgroup where that is less.

    What a cgroup has in its page cache and does not use counts as free, as the kernel counts it.
    """
    import psutil

    return min([psutil.virtual_memory().available, *_cgroup_rooms(CGROUPS, Path("/proc/self"))])


def _cgroup_rooms(root: Path, process: Path) -> list[int]:
    """Bytes left in the limited cgroups that hold `process`, version 1 or 2, with their parents."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return []  # not Linux
    rooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, used = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount = root / "memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = mount / path.lstrip("/")
        # A container sees its own group as the root, whatever the path is called outside.
        for group in (own, *own.parents):
            if not group.is_relative_to(mount):
                break
            try:
                left = int((group / limit).read_text()) - int((group / used).read_text())
                rows = (group / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):  # no such group, or "max"
                continue
            stat = dict(row.split() for row in rows)
            cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            rooms.append(max(0, left + cache))
    return rooms


def gpu() -> str:
    """The GPUs of this machine, for example "2 x NVIDIA H200", or nothing."""
    import torch

    if not torch.cuda.is_available():
        return ""
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def hardware() -> str:
    """GPUs, processor, cores this process may use, memory."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    parts = [gpu(), model, f"{cores} cores", f"{total / 2**30:.0f} GiB"]
    return ", ".join(filter(None, parts))


def _nameless(argument: str) -> str:
    """A path of this machine without the folders, which say nothing elsewhere."""
    return Path(argument).name if argument.startswith("/") else argument
