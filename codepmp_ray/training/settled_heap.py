"""The heap of a process that trains: no pauses during steps, and nothing kept after them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def settled_heap() -> Iterator[None]:
    """What exists now is here to stay: the collector leaves it alone until the block ends.

    Its full passes stop every thread, for 0.1 s on what torch, transformers and a model's modules
    hold, at another step on every rank. The objects that one checkpoint makes set one off.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def give_back_memory() -> None:
    """Free what lies in cycles, as models and optimizers do, and give the system its pages.

    For a process that trains one model after another: glibc keeps what was freed for the thread
    that had it, and each training has a thread of its own.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
