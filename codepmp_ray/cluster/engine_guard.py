"""Engine processes end with the actor that started them, however it ends.

vLLM's engine and workers are processes of their own. When Ray kills their actor (SIGKILL at the end
of a pool, a lost driver, a lost node) nothing tells them: they live on and keep their memory, on a
GPU all of it. A watcher process holds one end of a pipe; when the actor is gone, the kernel closes
the other end, and the watcher kills what the actor had started.
"""

from __future__ import annotations

import subprocess
import sys

import psutil

# Standard library only, isolated: it must start fast and outlive anything that breaks elsewhere.
_WATCHER = """
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


def guard_children() -> None:
    """Tie the present descendants of this process to its life. Does nothing outside Linux."""
    if not sys.platform.startswith("linux"):
        return
    children = psutil.Process().children(recursive=True)
    tagged = [f"{child.pid}:{start}" for child in children if (start := _start_ticks(child.pid))]
    if not tagged:
        return
    # The pipe closes when this process ends: the Popen object is kept, its stdin never written.
    _watchers.append(
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHER, *tagged],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A session of its own, so that a signal to the actor's group does not end it first.
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
