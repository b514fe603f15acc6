"""Limits of the HTTP interface: bytes of a body, time to send it, requests at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.gate import Gate
from tests.processes import PATIENCE_S
from tests.unit.serve.http_fakes import (
    HEADERS,
    MAX_BODY_BYTES,
    SETTINGS,
    FakeBackend,
    bon,
    error_of,
    request_scope,
)


def test_body_over_the_limit_is_413(client: TestClient) -> None:
    assert error_of(bon(client, candidates=["a" * MAX_BODY_BYTES]), 413)["code"] == "body_too_large"


def test_body_over_the_limit_is_refused_while_it_streams(backend: FakeBackend) -> None:
    """No length is announced, and the sender would never stop."""
    app = create_app(SETTINGS, backend)
    num_sent = 0
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal num_sent
        num_sent += 10_000
        assert num_sent < 3 * MAX_BODY_BYTES, "it reads on"
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(request_scope(), receive, send))
    assert sent[0]["status"] == 413
    assert num_sent <= MAX_BODY_BYTES + 10_000


def test_announced_length_over_the_limit_is_refused_unread(backend: FakeBackend) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = request_scope((b"content-length", b"9" * 30))
    asyncio.run(create_app(SETTINGS, backend)(scope, receive, send))
    assert sent[0]["status"] == 413


def test_body_without_a_key_is_not_read(backend: FakeBackend) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {**request_scope(), "headers": []}
    asyncio.run(create_app(SETTINGS, backend)(scope, receive, send))
    assert sent[0]["status"] == 401


def test_body_that_comes_too_slowly_is_408() -> None:
    sent: list[dict[str, Any]] = []

    async def never_called(*_: Any) -> None:
        raise AssertionError("the application was reached")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    class OpenKeys:
        def caller(self, headers: Any) -> str:
            return "anyone"

    gate: Any = Gate
    middleware = gate(never_called, OpenKeys(), max_body_bytes=1000, body_timeout_s=0.1)
    asyncio.run(middleware(request_scope(), receive, send))
    assert sent[0]["status"] == 408


@pytest.fixture
def scraped(backend: FakeBackend) -> Iterator[TestClient]:
    """A service that lets whoever has the token "scrape" see its figures."""
    settings = SETTINGS.model_copy(update={"metrics_token_sha256": (digest_of("scrape"),)})
    with TestClient(create_app(settings, backend), headers=HEADERS) as open_client:
        yield open_client


def test_more_than_the_concurrent_limit_is_429_and_room_comes_back(
    scraped: TestClient, backend: FakeBackend
) -> None:
    client = scraped
    backend.scorer.gate.clear()
    statuses: list[int] = []

    def nobody_waits() -> bool:
        figures = client.get("/metrics", headers={"authorization": "Bearer scrape"}).text
        return "codepmp_tokens_waiting 0.0" in figures

    def call() -> None:
        statuses.append(bon(client, prompt="wait").status_code)

    threads = [threading.Thread(target=call) for _ in range(SETTINGS.max_concurrent_requests)]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + PATIENCE_S
    while backend.scorer.num_waiting < len(threads) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    waiting = threading.Thread(target=lambda: statuses.append(bon(client).status_code))
    waiting.start()  # whoever has nothing waiting may wait with one call
    while nobody_waits() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    refused = bon(client)
    assert error_of(refused, 429)["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) > 0
    assert client.get("/health").status_code == 200
    backend.scorer.gate.set()
    for thread in [*threads, waiting]:
        thread.join()
    assert statuses == [200] * (len(threads) + 1)
    assert bon(client).status_code == 200
