"""The listener that a job's ingress has: a socket that outlives it, and callers who leave."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from benchmarks._fake_scoring import FakeBackend, FakeScorer
from codepmp_ray.errors import ResourceError
from codepmp_ray.serve import listening
from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.listening import HttpServer, given_to_ingresses, open_port, received
from tests.unit.serve.http_fakes import HEADERS, KEY, SETTINGS

pytestmark = pytest.mark.slow

BODY = {"prompt": "p", "candidates": [f"{i:0100}" for i in range(100)]}


def app_of(scorer: FakeScorer) -> Any:
    return create_app(SETTINGS, FakeBackend(scorer))


@asynccontextmanager
async def serving(app: Any, given: socket.socket, **tls: str) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, tls)
    server.begin(given)
    try:
        yield server
    finally:
        await server.end()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.01)


def url_of(opened: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{opened.getsockname()[1]}"


def test_a_caller_waits_while_one_ingress_follows_another() -> None:
    """The socket is the job's: between two ingresses nobody is refused."""

    async def test() -> None:
        with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
            async with httpx.AsyncClient(base_url=url_of(held), timeout=30) as client:
                asked = asyncio.create_task(client.get("/health"))
                await asyncio.sleep(0.2)
                assert not asked.done()
                for _ in range(2):
                    async with serving(app_of(FakeScorer()), received(path)):
                        assert (await asked).json() == {"status": "ok"}
                    client.headers["connection"] = "close"
                    asked = asyncio.create_task(client.get("/health"))
                    await asyncio.sleep(0.2)
                    assert not asked.done()
                asked.cancel()
        with pytest.raises(OSError):
            received(path)

    asyncio.run(test())


def test_who_asks_for_the_socket_and_goes_leaves_it_to_the_next() -> None:
    with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(path)
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with received(path) as given:
            assert given.getsockname() == held.getsockname()


def test_a_port_that_is_taken_is_refused_and_a_given_up_one_is_free() -> None:
    with open_port("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(ResourceError, match=f"serving.port={port} on 127.0.0.1.*or 0"):
            open_port("127.0.0.1", port)
    open_port("127.0.0.1", port).close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("state", ["scored", "waiting"])
def test_the_call_of_who_closes_the_connection_ends(how: str, state: str) -> None:
    """Being scored, or waiting for a turn behind two others; the others are answered."""
    scorer = FakeScorer(tokens_per_s=10_000)  # a body takes 1 s

    async def leave(port: int) -> None:
        body = json.dumps(BODY).encode()
        lines = f"POST /v1/bon HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n"
        lines += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(lines.encode() + body)
        await writer.drain()
        await asyncio.sleep(0.3)
        if how == "reset":
            writer.transport.abort()
        else:
            writer.close()

    async def test() -> None:
        with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
            app = app_of(scorer)
            async with (
                serving(app, received(path)),
                httpx.AsyncClient(base_url=url_of(held), timeout=60, headers=HEADERS) as client,
            ):
                num_others = 2 if state == "waiting" else 1
                asked = [
                    asyncio.create_task(client.post("/v1/bon", json=BODY))
                    for _ in range(num_others)
                ]
                await until(lambda: scorer.num["started"] == num_others)
                await leave(held.getsockname()[1])
                if state == "scored":
                    await until(lambda: scorer.num["cancelled"] == 1)
                answers = await asyncio.gather(*asked)
                assert [answer.status_code for answer in answers] == [200] * num_others
                assert (await client.post("/v1/bon", json=BODY)).status_code == 200
        is_scored = state == "scored"
        assert scorer.num == {
            "started": num_others + 1 + is_scored,
            "finished": num_others + 1,
            "cancelled": int(is_scored),
        }

    asyncio.run(test())


def test_a_stop_answers_who_is_inside_and_takes_nobody_new() -> None:
    scorer = FakeScorer(tokens_per_s=20_000)

    async def test() -> None:
        with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
            url = url_of(held)
            async with httpx.AsyncClient(base_url=url, timeout=60, headers=HEADERS) as client:
                async with serving(app_of(scorer), received(path)) as server:
                    asked = asyncio.create_task(client.post("/v1/bon", json=BODY))
                    await until(lambda: scorer.num["started"] == 1)
                    held.close()
                    assert not server.has_ended
                assert server.has_ended
                assert (await asked).status_code == 200
                with pytest.raises(httpx.ConnectError):
                    await client.get("/health")

    asyncio.run(test())


def test_a_stop_cuts_off_who_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_LAST_BYTES_S", 1)
    scorer = FakeScorer(tokens_per_s=10)

    async def test() -> None:
        with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
            url = url_of(held)
            async with httpx.AsyncClient(base_url=url, timeout=60, headers=HEADERS) as client:
                async with serving(app_of(scorer), received(path)):
                    asked = asyncio.create_task(client.post("/v1/bon", json=BODY))
                    await until(lambda: scorer.num["started"] == 1)
                with pytest.raises(httpx.HTTPError):
                    (await asked).raise_for_status()
        assert scorer.num["cancelled"] == 1

    asyncio.run(test())


def test_tls_is_the_listeners_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    files = {"ssl_certfile": str(tmp_path / "cert"), "ssl_keyfile": str(tmp_path / "key")}
    made.private_key_pem.write_to_path(files["ssl_keyfile"])
    chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
    Path(files["ssl_certfile"]).write_bytes(chain)
    context = httpx.create_ssl_context()
    authority.configure_trust(context)

    async def test() -> None:
        with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
            async with (
                serving(app_of(FakeScorer()), received(path), **files),
                httpx.AsyncClient(base_url=url_of(held, "https"), verify=context) as client,
            ):
                assert (await client.get("/health")).status_code == 200

    asyncio.run(test())


def test_a_failure_is_answered_and_its_words_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeScorer):
        async def score_ids(self, *_: Any) -> Any:
            raise RuntimeError("the secret prompt")

    async def test() -> None:
        with open_port("127.0.0.1", 0) as held, given_to_ingresses(held) as path:
            async with (
                serving(app_of(Broken()), received(path)),
                httpx.AsyncClient(base_url=url_of(held), headers=HEADERS) as client,
            ):
                answer = await client.post("/v1/bon", json=BODY)
                assert answer.status_code == 500 and "secret" not in answer.text

    with caplog.at_level(logging.INFO):
        asyncio.run(test())
    assert "secret" not in caplog.text and "RuntimeError" in caplog.text
