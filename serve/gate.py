"""What stands before every route: the key, then the size and the pace of the body.

Plain ASGI, so that a request without a key is refused before its body is read, and a body that is
too large or too slow is refused while it comes in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .auth import KeyRing
from .draining import Doors
from .errors import ApiError

# Answers without a key. Everything else needs one, unknown paths included.
PUBLIC_PATHS = frozenset({"/", "/health", "/ready"})


METRICS_PATH, WEIGHTS_PATH = "/metrics", "/admin/weights"
# With it a caller who leaves would go on being scored: Serve's proxy would not tell.
_STAYS_HEADER = b"x-request-disconnect-disabled"
_CALLER = "codepmp.caller"


def caller_of(scope: Mapping[str, Any]) -> str:
    """The name that the Gate gave to whoever sent this request."""
    return scope[_CALLER]


def plain_path(scope: Scope) -> str:
    """The path below the application's route prefix, without slashes that mean nothing."""
    path, prefix = scope["path"], scope.get("root_path", "")
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        path = path.removeprefix(prefix)
    return re.sub("/{2,}", "/", path).rstrip("/") or "/"


class _Disconnected(Exception):
    pass


class Gate:
    """ASGI middleware.

    Args:
        scrapers: tokens that open `/metrics`, which API keys do not.
        admins: keys that open `/admin/weights`, which no others do.
        max_body_bytes: larger bodies get 413.
        body_timeout_s: a body that takes longer to arrive gets 408.
        doors: once they close, whoever comes gets 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        max_body_bytes: int,
        body_timeout_s: float = 60.0,
        scrapers: KeyRing | None = None,
        doors: Doors | None = None,
        admins: KeyRing | None = None,
    ) -> None:
        self._app, self._keys = app, keys
        self._own_rings = {METRICS_PATH: scrapers, WEIGHTS_PATH: admins}
        self._doors = doors or Doors()
        self._max_body_bytes, self._body_timeout_s = max_body_bytes, body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path, prefix = plain_path(scope), scope.get("root_path", "")
        is_head = scope["method"] == "HEAD"
        if is_head:
            send = _without_body(send)
        try:
            ring = self._own_rings.get(path, self._keys)
            caller = ring.caller(scope["headers"]) if ring is not None else None
            is_public = path in PUBLIC_PATHS and scope["method"] in ("GET", "HEAD")
            if caller is None and not is_public:
                raise ApiError(401, "Send an API key as Authorization: Bearer KEY or x-api-key.")
            if is_public and not scope["path"].endswith("/") and path == "/":
                # The page's own calls are relative to its address.
                await RedirectResponse(f"{prefix}/")(scope, receive, send)
                return
            scope = {**scope, "path": prefix + path, _CALLER: caller or ""}
            if is_head:
                scope["method"] = "GET"
            if is_public:
                # Their routes read no body; what a stranger sends with the request stays unread.
                await self._app(scope, receive, send)
                return
            if _STAYS_HEADER in dict(scope["headers"]):
                raise ApiError(422, f"{_STAYS_HEADER.decode()} is not supported: leave it out.")
            if self._doors.are_closing:
                raise ApiError(503, "The service is being stopped.", retry_after_s=5)
            with self._doors.inside():
                body = await self._read(scope, receive)
                await self._while_there(scope, body, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except _Disconnected:
            return

    async def _while_there(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Call the application, and end that when the caller leaves before the answer is sent."""
        calling = asyncio.current_task()
        assert calling is not None
        is_answered = has_left = False

        async def sending(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                is_answered = True
            await send(message)

        async def watch() -> None:
            nonlocal has_left
            with suppress(Exception):  # of a proxy that died
                await receive()  # after the body only the end of the connection comes
            if not is_answered:
                has_left = True
                calling.cancel()

        watching = asyncio.create_task(watch())
        try:
            await self._app(scope, _replay(body), sending)
        except asyncio.CancelledError:
            if not has_left:
                raise
            calling.uncancel()
        finally:
            watching.cancel()

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self._max_body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Disconnected
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise ApiError(
                408, f"The body did not arrive within {self._body_timeout_s:g} s."
            ) from None

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body exceeds max_body_bytes={self._max_body_bytes}.")


def _replay(body: bytes) -> Receive:
    """A `receive` that gives `body` once."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else {"type": "http.disconnect"}

    return replayed


def _without_body(send: Send) -> Send:
    """What HEAD gets: the headers of GET."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending
