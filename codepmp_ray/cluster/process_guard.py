"""Processes end with the one that started them, however it ends.

vLLM's engine and workers are processes of their own. When Ray kills their actor, or a driver with
Ray inside is killed, nothing tells them: they live on and keep their memory, on a GPU all of it.
A watcher process holds one end of a pipe; when its maker is gone, the kernel closes the other end,
and the watcher kills what was to end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import psutil

_VARIABLE = "CODEPMP_DRIVER"

# Standard library only, isolated: they must start fast and outlive anything that breaks elsewhere.
_KILL_LISTED = """
import os, signal, sys
processes = [argument.split(":") for argument in sys.argv[1:]]
sys.stdin.buffer.read()
for pid, started in processes:
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            # Fields after the command name, which may hold anything; the start time is the 22nd.
            fields = handle.read().rpartition(b")")[2].split()
        if fields[19].decode() == started:  # not another process under a number used again
            os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
"""

_KILL_MARKED = """
import os, signal, sys, time
mark = sys.argv[1].encode()
def marked():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as handle:
                if mark in handle.read().split(b"\\0") and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found
sys.stdin.buffer.read()
patience_s = time.monotonic() + 2  # what ends by itself may do so in order
while marked() and time.monotonic() < patience_s:
    time.sleep(0.05)
while left := marked():  # again and again, for what was started meanwhile
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.2)
"""


def guard_children() -> None:
    """Tie the present descendants of this process to its life. Does nothing outside Linux."""
    children = psutil.Process().children(recursive=True)
    tagged = [f"{child.pid}:{start}" for child in children if (start := _start_ticks(child.pid))]
    if tagged:
        _watch(_KILL_LISTED, tagged)


def guard_future_processes() -> None:
    """Tie every process that is going to be started below this one to its life.

    They are known by a variable that they inherit, also as children of children. Does nothing
    outside Linux.
    """
    value = uuid.uuid4().hex
    _watch(_KILL_MARKED, [f"{_VARIABLE}={value}"])
    os.environ[_VARIABLE] = value


def _watch(program: str, arguments: list[str]) -> None:
    if not sys.platform.startswith("linux"):
        return
    # The pipe closes when this process ends: the Popen object is kept, its stdin never written.
    _watchers.append(
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A session of its own, so that a signal to the maker's group does not end it first.
            start_new_session=True,
        )
    )


_watchers: list[subprocess.Popen[bytes]] = []


def _start_ticks(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return None
