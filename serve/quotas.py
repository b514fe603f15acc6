"""What a key may use in a minute: none has a limit unless the service is told so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from .errors import ApiError

_ONE = 1 - 1e-6  # sums of floats: who comes back when told to is let in


class Quotas:
    """A bucket of requests and one of tokens for each key, filled evenly. Called in one event loop.

    A call is let in while something is left, and takes what it used when that is known: it may
    overdraw, and the next one waits for longer.

    Args:
        per_minute: of "requests" and "tokens"; None or no entry: as many as come.
    """

    def __init__(
        self, per_minute: dict[str, int | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rates = {unit: num / 60 for unit, num in per_minute.items() if num is not None}
        self._clock = clock
        self._left: dict[tuple[str, str], tuple[float, float]] = {}  # and when it was so

    def enter(self, caller: str) -> None:
        """Raises ApiError 429 for a caller who has nothing left."""
        for unit, rate in self._rates.items():
            if (left := self._now(caller, unit)) < _ONE:
                wait_s = math.ceil((1 - left) / rate)
                raise ApiError(
                    429,
                    f"This key has used its {rate * 60:g} {unit} a minute.",
                    code="quota_exceeded",
                    retry_after_s=wait_s,
                )
        self.use(caller, "requests", 1)

    def use(self, caller: str, unit: str, num: int) -> None:
        if unit in self._rates:
            self._left[caller, unit] = self._now(caller, unit) - num, self._clock()

    def _now(self, caller: str, unit: str) -> float:
        most, now_s = self._rates[unit] * 60, self._clock()
        left, since_s = self._left.get((caller, unit), (most, now_s))
        return min(left + (now_s - since_s) * self._rates[unit], most)
