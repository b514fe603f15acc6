"""Processes end with the one that started them, even on SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.processes import PATIENCE_S, is_alive

ACTOR = """
import subprocess, sys, time
from codepmp_ray.cluster.process_guard import guard_children, guard_future_processes
if sys.argv[1] == "future":
    guard_future_processes()
# A child in a session of its own, as Ray's processes are.
engine = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(900)"], start_new_session=True
)
if sys.argv[1] == "children":
    guard_children()
print(engine.pid, flush=True)
time.sleep(900)
"""


def kill_actor_of(mode: str) -> int:
    actor = subprocess.Popen(
        [sys.executable, "-c", ACTOR, mode], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert actor.stdout is not None
    engine_pid = int(actor.stdout.readline())
    assert is_alive(engine_pid)
    actor.send_signal(signal.SIGKILL)
    actor.wait()
    return engine_pid


@pytest.mark.parametrize("mode", ["children", "future"])
def test_guarded_processes_end_when_their_maker_is_killed(mode: str) -> None:
    engine_pid = kill_actor_of(mode)
    deadline_s = time.monotonic() + PATIENCE_S
    while is_alive(engine_pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not is_alive(engine_pid)


def test_without_a_guard_they_would_live_on() -> None:
    engine_pid = kill_actor_of("unguarded")
    time.sleep(1)
    try:
        assert is_alive(engine_pid)
    finally:
        os.kill(engine_pid, signal.SIGKILL)
