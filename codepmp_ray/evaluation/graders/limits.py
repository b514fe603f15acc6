"""Bounds on the grading of one answer, kept by the kernel, in a process made for it.

Three of them, each for what gets past the one before:
- after `time_limit_s` of processor time a signal raises inside Python code;
- a second later the kernel ends the process, whatever C function it is in (an integer of a
  billion digits, say);
- after `_WALL_FACTOR` times that in wall-clock time it is ended too, should it sleep.
Memory is bounded for the whole process. The pool notices that a process has gone.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process
from types import FrameType

from codepmp_ray.config.evaluation import GraderConfig

_WALL_FACTOR = 30  # wall-clock time on a busy machine, for one second of processor time
_AGAIN_S = 0.2  # a library that catches everything is interrupted again


class AnswerTimeout(BaseException):
    """Not an Exception, so that no library takes it for an error of its own."""


_is_armed = False


def prepare_process(config: GraderConfig) -> None:
    """Called once in each grading process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _bound(resource.RLIMIT_AS, _virtual_bytes() + (config.memory_mb << 20))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy takes address space for each thread
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGPROF, _interrupt)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


@contextmanager
def answer_limits(time_limit_s: float) -> Iterator[None]:
    """Raise AnswerTimeout in the block, or end the process, as the module's text says."""
    global _is_armed
    _bound(resource.RLIMIT_CPU, math.ceil(time.process_time() + time_limit_s) + 1)
    signal.setitimer(signal.ITIMER_REAL, time_limit_s * _WALL_FACTOR)
    _is_armed = True
    signal.setitimer(signal.ITIMER_PROF, time_limit_s, _AGAIN_S)
    try:
        yield
    finally:
        _is_armed = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    if _is_armed:
        raise AnswerTimeout


def _bound(kind: int, limit: int) -> None:
    """Set the soft limit, no higher than the hard one that the process has."""
    _, hard = resource.getrlimit(kind)
    bounded = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (bounded, hard))


def _virtual_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
