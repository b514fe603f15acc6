"""Who was refused a moment ago is refused again without asking the ingress.

Past saturation most requests are refused, and each way through Serve's routing and the ingress
takes processor time from what is being scored. An answer of 429 says how long what is ahead will
take; for a tenth of that the same key gets 429 from the proxy. The waiting room does not run empty
meanwhile.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable

from .errors import ApiError

_SHARE = 0.1
_KEY_HEADERS = (b"authorization", b"x-api-key")

Headers = Iterable[tuple[bytes, bytes]]


class RecentRefusals:
    """Keys are kept as digests, and only those that the ingress knows: others get 401 from it.

    Args:
        count: called for each refusal that the ingress does not see.
    """

    def __init__(
        self,
        count: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count, self._clock = count, clock
        self._until: dict[bytes, tuple[float, float]] = {}  # refused until; there is room from

    def refusal(self, headers: Headers) -> ApiError | None:
        """What a request with these headers gets now, if it need not be asked about."""
        if not self._until:
            return None
        refused = self._until.get(name := _digest(headers))
        if refused is None:
            return None
        now_s, (until_s, room_s) = self._clock(), refused
        if now_s >= until_s:
            del self._until[name]
            return None
        self._count()
        return ApiError(
            429,
            "Your share of the waiting room is full.",
            retry_after_s=max(1, math.ceil(room_s - now_s)),
        )

    def learn(self, headers: Headers, answered: Headers) -> None:
        """The ingress has refused a request with `headers`; `answered` are those of its answer."""
        found = next((value for name, value in answered if name.lower() == b"retry-after"), b"")
        if found.isdigit():
            now_s, wait_s = self._clock(), int(found)
            self._until[_digest(headers)] = now_s + _SHARE * wait_s, now_s + wait_s


def _digest(headers: Headers) -> bytes:
    joined = b"\n".join(name + value for name, value in headers if name in _KEY_HEADERS)
    return hashlib.sha256(joined).digest()
