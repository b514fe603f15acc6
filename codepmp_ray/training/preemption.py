"""Whether nodes of this training are about to be taken away."""

from __future__ import annotations

import time
from collections.abc import Callable


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
