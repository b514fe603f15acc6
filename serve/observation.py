"""What can be seen of the service: Prometheus figures, one log line per request, request ids.

Neither holds a text: prompts and candidates are the callers' own.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codepmp_ray.scoring.best_of_n import BestOfN

from .errors import ApiError
from .gate import plain_path
from .traces import Traces

logger = logging.getLogger("ray.serve")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_NOTHING_SENT = 499  # the caller had gone
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Facts:
    """What the log line of the current request will say."""

    request_id: str
    shown: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # of the answer


_current: ContextVar[Facts | None] = ContextVar("facts", default=None)


def note(**facts: Any) -> None:
    """Add to the current request's log line."""
    if (current := _current.get()) is not None:
        current.shown.update(facts)


def header(name: str, value: str) -> None:
    """Add to the headers of the current request's answer."""
    if (current := _current.get()) is not None:
        current.headers[name] = value


class Metrics:
    """Figures of one ingress replica, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._made(Counter, "requests", "Answered requests.", ["route", "status"])
        self.seconds = self._made(
            Histogram,
            "request_seconds",
            "Time of a request: waiting for its turn, being scored, and in all.",
            ["phase"],
            buckets=_SECONDS,
        )
        self.tokens = self._made(
            Counter,
            "tokens",
            "Tokens of scored requests: of prompts (once), of distinct candidates, and of prompts "
            "taken from the cache (summed over candidates).",
            ["kind"],
        )
        self.candidates = self._made(Counter, "candidates", "Scored candidates.")
        self.truncated = self._made(Counter, "truncated", "Candidates that were cut to fit.")
        self.not_finite = self._made(
            Counter, "not_finite", "Candidates for which the model gave no finite number."
        )
        self.key_requests = self._made(Counter, "key_requests", "Scored calls by key.", ["key"])
        self.key_tokens = self._made(
            Counter, "key_tokens", "Tokens as in codepmp_tokens, by key.", ["key", "kind"]
        )
        self.in_flight = self._made(Gauge, "tokens_in_flight", "Estimated tokens being scored.")
        self.waiting = self._made(Gauge, "tokens_waiting", "Estimated tokens that wait.")

    def _made(self, kind: Any, name: str, text: str, labels: Any = (), **more: Any) -> Any:
        return kind(f"codepmp_{name}", text, labels, registry=self._registry, **more)

    def used(self, key: str, results: Sequence[BestOfN]) -> None:
        """One call with the key of this name."""
        self.key_requests.labels(key).inc()
        for result in results:
            self.key_tokens.labels(key, "prompt").inc(result.num_prompt_tokens)
            self.key_tokens.labels(key, "candidate").inc(result.num_response_tokens)

    def scored(self, result: BestOfN) -> None:
        self.candidates.inc(len(result.candidates))
        self.truncated.inc(sum(item.truncated for item in result.candidates))
        self.not_finite.inc(result.num_not_finite)
        self.tokens.labels("prompt").inc(result.num_prompt_tokens)
        self.tokens.labels("candidate").inc(result.num_response_tokens)
        self.tokens.labels("cached_prompt").inc(result.num_cached_prompt_tokens)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class Observer:
    """ASGI middleware around everything: counts, times, log line and `x-request-id`.

    Args:
        routes: known paths; others are counted as one.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: frozenset[str],
        traces: Traces | None = None,
    ) -> None:
        self._app, self._metrics, self._routes, self._traces = app, metrics, routes, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = Facts(_request_id(scope))
        status = _NOTHING_SENT
        start_s = time.monotonic()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(facts.headers | {"x-request-id": facts.request_id})
            await send(message)

        token = _current.set(facts)
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            # Here, and not in Starlette's outermost layer, which would raise it again for whoever
            # runs the server to log, and count it as nobody's answer. Type only: messages of
            # engines and libraries may quote the prompt.
            if status != _NOTHING_SENT:
                raise
            logger.error("Request to %r failed with %s.", scope["path"], type(error).__name__)
            failure = ApiError(500, "The service failed to answer this request.")
            await failure.response()(scope, receive, sending)
        finally:
            _current.reset(token)
            seconds = time.monotonic() - start_s
            path = plain_path(scope)
            route = path if path in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels("total").observe(seconds)
            line = {
                "request_id": facts.request_id,
                "route": route,
                "status": status,
                "total_s": round(seconds, 4),
                **facts.shown,
            }
            logger.info(json.dumps(line))
            if self._traces is not None:
                self._traces.record(scope, line)


def _request_id(scope: Scope) -> str:
    """The caller's own, where it is short and plain, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return given
    return uuid.uuid4().hex
