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
    hold, at another step on every rank. The objects that one checkpoint makes set one off. In a
    heap that is frozen already (`returned_heap`), a pass is short and nothing is done.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def returned_heap() -> Iterator[None]:
    """Free what the block leaves in cycles, as models and optimizers do; give the system its pages.

    For a process that trains one model after another: glibc keeps what was freed for the thread
    that had it, and each training has a thread of its own. What existed before the block is not
    looked at, which takes the collector ten times as long as the block's own objects.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
