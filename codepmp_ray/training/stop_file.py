"""A request to stop: a file that the driver writes and every rank notices after the same step.

The driver cannot reach into a training function of Ray Train; the stage's folder is what both see.
"""

from __future__ import annotations

from codepmp_ray.storage import LocalStore

_FILE = "stop"


def request_stop(store: LocalStore) -> None:
    """Ask the ranks of the stage in `store` to checkpoint and stop."""
    store.put(_FILE, b"")


def forget_stop(store: LocalStore) -> None:
    """Take the request back, before the ranks start again."""
    store.delete(_FILE)


def is_stop_requested(store: LocalStore) -> bool:
    """Whether somebody asked. Ranks have to agree on one answer."""
    return store.exists(_FILE)
