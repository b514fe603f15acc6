"""CPU seconds of the processes that a cluster's head consists of."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict

import numpy as np
import psutil

from benchmarks._ray_nodes import RayNode

_MARKS = {"gcs_server": "gcs", "raylet/raylet": "raylet", "monitor.py": "autoscaler"}


class HeadCpu:
    """By kind (gcs, raylet, autoscaler, driver, other), at several moments."""

    def __init__(self, head: RayNode) -> None:
        self._head = head
        self._moments: list[tuple[float, dict[str, float]]] = []

    def look(self, driver: subprocess.Popen[bytes] | None = None) -> None:
        """At the head and a driver on it."""
        found: defaultdict[str, float] = defaultdict(float)
        for process in self._head.processes():
            found[_kind(process)] += _cpu_s(process)
        if driver is not None:
            found["driver"] += _cpu_s(psutil.Process(driver.pid))
        self._moments.append((time.time(), found))

    def cores(self, start_s: float | None = None, end_s: float | None = None) -> dict[str, float]:
        """In use between two times of the clock, or between the first and the last look."""
        times = [at for at, _ in self._moments]
        span = [times[0] if start_s is None else start_s, times[-1] if end_s is None else end_s]
        cores: dict[str, float] = {}
        for kind in {kind for _, found in self._moments for kind in found}:
            start, end = np.interp(span, times, [seen.get(kind, 0.0) for _, seen in self._moments])
            cores[kind] = float(end - start) / (span[1] - span[0])
        return cores


def _kind(process: psutil.Process) -> str:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return "other"
    return next((kind for mark, kind in _MARKS.items() if mark in line), "other")


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system
