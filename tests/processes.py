"""Processes of the tests: how long they may take, and that none outlives its test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
# A wait that only a hang should end: whoever waits for something takes this much, so that no test
# depends on how busy the machine is.
PATIENCE_S = 240.0


def is_alive(pid: int) -> bool:
    """One that has ended and that nobody waits for is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(
    is_so: Callable[[], object], why: Callable[[], str] = str, poll_s: float = 0.05
) -> None:
    """Fail with what `why` says when it is not so within PATIENCE_S."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up_s, why()
        time.sleep(poll_s)


@contextmanager
def running(
    *arguments: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`python arguments` from the checkout, with a cluster of its own; killed in the end."""
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    own |= {"PYTHONPATH": str(ROOT), **(environment or {})}
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=own, stdout=file, stderr=file, cwd=ROOT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
