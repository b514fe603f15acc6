"""What stands before Serve's routing: its own routes, its headers, and its failures."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from codepmp_ray.serve.front import Front, middlewares
from codepmp_ray.serve.gate import Gate
from codepmp_ray.serve.recent_refusals import RecentRefusals
from tests.unit.serve.http_fakes import request_scope


class Proxy:
    """Stands in for Serve's proxy: keeps what it was asked, answers with `messages`."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = messages
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        for message in self.messages:
            await send(message)


def answer(status: int, kind: bytes = b"application/json") -> list[dict[str, Any]]:
    headers = [(b"content-type", kind)]
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": b"{}"},
    ]


def ask(proxy: Proxy, scope: dict[str, Any]) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Front(proxy)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes", "/-/"])
def test_serves_own_routes_are_for_this_machine(path: str) -> None:
    for address, status in (
        ("127.0.0.1", 200),
        ("127.9.9.9", 200),
        ("::1", 200),
        ("192.168.0.7", 404),
        ("2001:db8::1", 404),
        ("", 404),
    ):
        scope = {**request_scope(), "path": path, "client": (address, 5)}
        assert ask(Proxy(*answer(200)), scope)[0] == status
    assert ask(Proxy(*answer(200)), {**request_scope(), "path": path, "client": None})[0] == 404
    assert ask(Proxy(*answer(200)), {**request_scope(), "client": ("8.8.8.8", 5)})[0] == 200


def test_headers_that_steer_the_proxy_are_dropped() -> None:
    proxy = Proxy(*answer(200))
    dropped = [
        (b"x-request-timeout-seconds", b"0.1"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"serve_multiplexed_model_id", b"\xff"),
        (b"serve-multiplexed-model-id", b"a"),
        (b"x-session-id", b"\xff"),
        (b"x_session_id", b"\xff"),
        (b"x-request-id", b"\xff"),
        (b"x-request-id", b"a" * 65),
        (b"\xff", b"a"),
    ]
    kept = [(b"x-request-id", b"job-7.a"), (b"x-other", b"\xff")]
    ask(proxy, request_scope(*dropped, *kept))
    assert proxy.scopes[0]["headers"] == request_scope(*kept)["headers"]


def test_a_header_over_the_limit_is_431() -> None:
    proxy = Proxy(*answer(200))
    assert ask(proxy, request_scope((b"x", b"a" * 70_000)))[0] == 431
    assert ask(proxy, {**request_scope(), "raw_path": b"/" * 70_000})[0] == 431
    assert proxy.scopes == []


@pytest.mark.parametrize(
    "messages",
    [
        [],  # the ingress died with the request
        answer(404, b"text/plain; charset=utf-8"),  # the routes are not there yet
    ],
)
def test_a_service_that_is_away_is_503_in_our_form(messages: list[dict[str, Any]]) -> None:
    status, body = ask(Proxy(*messages), request_scope())
    assert status == 503 and json.loads(body)["error"]["code"] == "service_unavailable"


@pytest.mark.parametrize(("status", "kind"), [(404, b"application/json"), (408, b"text/plain")])
def test_other_answers_pass(status: int, kind: bytes) -> None:
    assert ask(Proxy(*answer(status, kind)), request_scope()) == (status, b"{}")


def ask_front(front: Front, scope: dict[str, Any]) -> tuple[int, dict[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    asyncio.run(front(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def refused(retry_after: bytes) -> list[dict[str, Any]]:
    start, body = answer(429)
    return [{**start, "headers": [*start["headers"], (b"Retry-After", retry_after)]}, body]


def test_who_was_refused_is_refused_again_for_a_tenth_of_the_time_without_the_ingress() -> None:
    now_s, counted = [100.0], []
    proxy = Proxy(*refused(b"20"))
    front = Front(proxy)
    front._refusals = RecentRefusals(lambda: counted.append(1), lambda: now_s[0])
    assert ask_front(front, request_scope())[0] == 429 and len(proxy.scopes) == 1
    proxy.messages = tuple(answer(200))
    now_s[0] += 1.9
    status, headers = ask_front(front, request_scope())
    assert (status, headers[b"retry-after"]) == (429, b"19")
    assert len(proxy.scopes) == 1 and counted == [1]
    # Other keys are asked about, and so is what needs no turn.
    other = request_scope()
    other["headers"] = [(b"authorization", b"Bearer other")]
    assert ask_front(front, other)[0] == 200
    assert ask_front(front, {**request_scope(), "method": "GET", "path": "/ready"})[0] == 200
    now_s[0] += 0.2
    assert ask_front(front, request_scope())[0] == 200
    assert counted == [1] and front._refusals._until == {}


@pytest.mark.parametrize("messages", [answer(401), answer(429), refused(b"soon")])
def test_nothing_is_learned_of_other_answers(messages: list[dict[str, Any]]) -> None:
    proxy = Proxy(*messages)
    front = Front(proxy)
    for _ in range(2):
        ask_front(front, request_scope())
    assert len(proxy.scopes) == 2


def test_websockets_are_closed_at_the_door() -> None:
    proxy, sent = Proxy(*answer(200)), []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {**request_scope(), "type": "websocket"}
    asyncio.run(Front(proxy)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}] and proxy.scopes == []
    gate: Any = Gate
    asyncio.run(gate(proxy, None, 1)(scope, receive, send))
    assert len(sent) == 2 and proxy.scopes == []


def test_serve_gets_it_as_middleware_and_guards_connections(monkeypatch: Any) -> None:
    import uvicorn
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    from codepmp_ray.serve.connection import GuardedProtocol

    monkeypatch.setattr("uvicorn.config.HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    (middleware,) = validate_http_proxy_callback_return(middlewares())
    assert middleware.cls is Front
    config = uvicorn.Config(lambda: None, factory=True)
    config.load()
    assert config.http_protocol_class is GuardedProtocol
