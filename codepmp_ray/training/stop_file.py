"""A request to stop: a file that the driver writes and every rank notices after the same step.

The driver cannot reach into a training function of Ray Train; the stage's folder is what both see.
"""

from __future__ import annotations

import time

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
