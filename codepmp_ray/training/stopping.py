"""Why a training stops before its last step: a file asks for it, or its nodes are taken away.

The driver writes the file and every rank notices it after the same step: a driver cannot reach into
a training function of Ray Train, and the stage's folder is what both see.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from codepmp_ray.storage import LocalStore, Store

_FILE = "stop"


def request_stop(store: Store) -> None:
    """Ask the ranks of the stage in `store` to checkpoint and stop."""
    store.put(_FILE, b"")


def forget_stop(store: Store) -> None:
    """Take the request back, before the ranks start again."""
    store.delete(_FILE)


class StopRequests:
    """Whether somebody asked; looked up as often as the store answers without being in the way."""

    def __init__(self, store: Store) -> None:
        self._store, self._asked_s = store, float("-inf")

    def is_there(self) -> bool:
        """The last answer, or a new one. Ranks have to agree on one."""
        if isinstance(self._store, LocalStore):
            return self._store.exists(_FILE)
        if time.monotonic() - self._asked_s < self._store.poll_s:
            return False
        self._asked_s = time.monotonic()
        return self._store.exists(_FILE)


class PreemptionNotice:
    """Asks at most once an interval, and tells of each notice once.

    Args:
        ask: is called on every rank at the same step, and has the same answer on all.
        interval_s: asking may take the ranks some time.
    """

    def __init__(self, ask: Callable[[], bool], interval_s: float) -> None:
        self._ask, self._interval_s = ask, interval_s
        self._asked_s = float("-inf")
        self._was_there = False

    def is_due(self) -> bool:
        """Whether it is time to ask; clocks differ, so one rank decides for all."""
        return time.monotonic() - self._asked_s >= self._interval_s

    def is_new(self) -> bool:
        """Ask; true when a notice is there that was not there the last time. Collective."""
        self._asked_s = time.monotonic()
        before, self._was_there = self._was_there, self._ask()
        return self._was_there and not before
