"""What one connection may do to the process that listens: bytes and time of its header lines.

uvicorn has no such limits with its fast parser, and Ray Serve offers no way to set any: without a
key one could keep connections open by a byte a minute, or have a header of any size held in memory.
"""

from __future__ import annotations

import asyncio

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_TIMEOUT_S = 20.0
LINGER_S = 10.0
MAX_HEADER_BYTES = 65_536
_DECODED_BY_SERVE = frozenset(
    {b"x-request-id", b"x-request-timeout-seconds", b"x-request-disconnect-disabled"}
    | {b"x-session-id", b"x_session_id", b"serve-multiplexed-model-id"}
    | {b"serve_multiplexed_model_id"}
)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits.

    The header's time counts from the connection, then from each request's first byte; between
    requests uvicorn's own keep-alive time holds. Who is answered before the end of the body (413)
    may go on sending for LINGER_S, which lets most clients read the answer; it is thrown away.
    """

    _timer: asyncio.TimerHandle | None = None
    _num_header_bytes = _num_named_bytes = 0
    _in_headers = True
    _is_complete = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._num_header_bytes += len(data)
        super().data_received(data)
        # What was read in one go may hold the beginning of the body too.
        if self._in_headers and self._num_header_bytes > MAX_HEADER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._begin()
        self._is_complete = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        # Serve fails with a 500 where it cannot decode a name, or the value of one of these.
        if name.isascii() and (name.lower() not in _DECODED_BY_SERVE or value.isascii()):
            super().on_header(name, value)

    def _count(self, num_bytes: int) -> None:
        """Raises ValueError, which the parser's caller answers with 400, for header lines that came
        in one go.
        """
        self._num_named_bytes += num_bytes
        if self._num_named_bytes > MAX_HEADER_BYTES:
            raise ValueError("the header is too large")

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_complete = True
        self._end()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_complete:
            self._cut_in(LINGER_S)

    def _begin(self) -> None:
        self._in_headers, self._num_header_bytes, self._num_named_bytes = True, 0, 0
        self._cut_in(HEADERS_TIMEOUT_S)

    def _end(self) -> None:
        self._in_headers = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)


def guard_connections() -> None:
    """Let the servers that this process starts from now on use it."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{GuardedProtocol.__name__}"
