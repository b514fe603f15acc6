"""What stands before Ray Serve's own routing, in the proxy process that listens.

Serve calls `middlewares` there when FRONT_VARIABLE names it in the environment of the cluster's
nodes, as the jobs of this project do for a Ray that they start. It closes what the ingress, behind
the proxy, cannot: Serve's own routes, its steering headers, failures of the proxy itself, and
connections that never get as far as a request. It also repeats refusals (serve/recent_refusals.py).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .connection import MAX_HEADER_BYTES, guard_connections
from .errors import ApiError
from .recent_refusals import RecentRefusals

FRONT_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
FRONT = f"{__package__}.front:middlewares"
# Serve starts a dead proxy again after three failed checks, by default every 10 s.
PROXY_CHECK_VARIABLE = "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"
_SERVE_ROUTES = "/-/"
# With these a caller would tell the proxy when to give up, or which replica to take.
_STEERING = frozenset(
    {
        *(b"x-request-timeout-seconds", b"x-request-disconnect-disabled"),
        *(b"serve-multiplexed-model-id", b"x-session-id"),
    }
)
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def use_front() -> None:
    """For a Ray that this process starts from now on; one that runs has its own environment."""
    os.environ.setdefault(FRONT_VARIABLE, FRONT)
    os.environ.setdefault(PROXY_CHECK_VARIABLE, "1")


def middlewares() -> list[Middleware]:
    """Called by Serve in each proxy process, before it listens."""
    from ray.util.metrics import Counter

    guard_connections()
    refused = Counter(
        "codepmp_requests_refused_early_total",
        "Requests that got 429 from the proxy, because their key had got it a moment ago.",
    )
    return [Middleware(Front, count_refusal=lambda: refused.inc())]


class Front:
    """ASGI middleware around Serve's proxy. `count_refusal` is told of early ones."""

    def __init__(self, app: ASGIApp, count_refusal: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._refusals = RecentRefusals(count_refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_work = scope["method"] == "POST"
        headers = scope["headers"]
        if refusal := _refusal(scope) or (is_work and self._refusals.refusal(headers)):
            await refusal.response()(scope, receive, send)
            return
        answered = _Answered(send)
        kept = [(name, value) for name, value in headers if _is_ours(name, value)]
        await self._app({**scope, "headers": kept}, receive, answered)
        if is_work and answered.status == 429:
            self._refusals.learn(headers, answered.headers)
        if not answered.has_begun:
            # The ingress died with the request, or it is about to come. Scoring again is safe.
            error = ApiError(503, "The service is not there at the moment.", retry_after_s=1)
            await error.response()(scope, receive, send)


class _Answered:
    """A `send` that holds back the plain 404 of a proxy that does not know our routes (yet)."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_held = False
        self.has_begun = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
            self._is_held = message["status"] == 404 and _is_plain_text(message["headers"])
        if not self._is_held:
            self.has_begun = True
            await self._send(message)


def _refusal(scope: Scope) -> ApiError | None:
    if scope["path"].startswith(_SERVE_ROUTES) and not _is_local(scope.get("client")):
        return ApiError(404, "Not Found")
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size + len(scope.get("raw_path") or b"") > MAX_HEADER_BYTES:
        return ApiError(431, f"The header exceeds {MAX_HEADER_BYTES} bytes.")
    return None


def _is_local(client: Any) -> bool:
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except (TypeError, ValueError):
        return False


def _is_ours(name: bytes, value: bytes) -> bool:
    """Serve decodes names as UTF-8, and the request's id; it fails with a 500 where it cannot."""
    if not name.isascii() or name.replace(b"_", b"-") in _STEERING:
        return False
    return name != b"x-request-id" or _PLAIN.fullmatch(value) is not None


def _is_plain_text(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/plain")
        for name, value in headers
    )
