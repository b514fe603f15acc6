"""Steps without the pauses of Python's garbage collector."""

from __future__ import annotations

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
