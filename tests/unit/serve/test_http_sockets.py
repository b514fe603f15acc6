"""Requests meant to break the service, as bytes over a real connection to a process of its own.

None gives a 5xx or hangs, and the process's memory stays where it was.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks._fake_service import KEY, FakeService, fake_service
from tests.processes import PATIENCE_S

pytestmark = pytest.mark.slow

BODY_TIMEOUT_S = 1.0
HEADERS_TIMEOUT_S = 1.5
MAX_BODY_BYTES = 2_000_000
# What a request may add to the process for as long as it lasts is freed again, and reused.
GROWTH_MB = 24


@pytest.fixture(scope="module")
def service() -> Iterator[FakeService]:
    with fake_service(
        max_body_bytes=MAX_BODY_BYTES,
        body_timeout_s=BODY_TIMEOUT_S,
        headers_timeout_s=HEADERS_TIMEOUT_S,
        linger_s=0.5,
    ) as running:
        for _ in range(3):  # buffers of the largest allowed body, kept by the allocator
            post(running, bon(candidates=["a" * (MAX_BODY_BYTES - 1000)]))
        yield running


@pytest.fixture(autouse=True)
def no_growth(service: FakeService) -> Iterator[None]:
    before_mb = service.memory_mb()
    yield
    assert service.memory_mb() - before_mb < GROWTH_MB
    assert httpx.get(f"{service.url}/health", timeout=PATIENCE_S).status_code == 200


def bon(**fields: Any) -> bytes:
    return json.dumps({"prompt": "p", "candidates": ["a"], **fields}).encode()


def head(*lines: str, path: str = "/v1/bon", key: str | None = KEY) -> bytes:
    wanted = [f"POST {path} HTTP/1.1", "host: x", *([f"x-api-key: {key}"] if key else []), *lines]
    return "\r\n".join([*wanted, "", ""]).encode("latin-1")


def post(service: FakeService, body: bytes, *lines: str, path: str = "/v1/bon") -> int:
    kind = () if any(line.startswith("content-type") for line in lines) else JSON
    head_bytes = head(*kind, *lines, f"content-length: {len(body)}", path=path)
    return status_of(service, head_bytes + body)


JSON = ("content-type: application/json",)


def status_of(service: FakeService, *parts: bytes, timeout_s: float = 10) -> int:
    """Send, and read the first line of the answer; 0 when the connection ends without one."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=timeout_s) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it did not want to hear the rest
        answer = b""
        try:
            while b"\r\n" not in answer and (chunk := connection.recv(4096)):
                answer += chunk
        except ConnectionResetError:
            pass
    return int(answer.split()[1]) if answer else 0


LARGE = b'{"prompt": "p", "candidates": ["' + b"a" * 1_000_000 + b'"]}'
DEEP = b'{"prompt": "p", "candidates": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES: list[tuple[str, bytes, int]] = [
    ("1 MB of one character", LARGE, 200),
    ("1 MB as a prompt", bon(prompt="a" * 1_000_000), 422),
    ("1 MB of a prompt that may be cut", bon(prompt="a" * 1_000_000, truncate="left"), 200),
    ("an empty candidate", bon(candidates=[""]), 200),
    ("only empty texts", bon(prompt="", candidates=[""]), 422),
    ("256 candidates", bon(candidates=["a"] * 256), 200),
    ("257 candidates", bon(candidates=["a"] * 257), 422),
    ("100,000 candidates", bon(candidates=["a"] * 100_000), 422),
    ("no candidates", bon(candidates=[]), 422),
    ("a number", bon(candidates=[1]), 422),
    ("NaN", b'{"prompt": "p", "candidates": ["a"], "top_n": NaN}', 422),
    ("Infinity", b'{"prompt": "p", "candidates": ["a"], "deadline_ms": Infinity}', 422),
    ("a number without end", b'{"prompt": "p", "candidates": ["a"], "top_n": ' + b"9" * 10**6, 422),
    ("a lone surrogate", b'{"prompt": "p", "candidates": ["\\udc00"]}', 422),
    ("surrogates the wrong way round", b'{"prompt": "\\udc00\\ud800", "candidates": ["a"]}', 422),
    ("half of a character", b'{"prompt": "p", "candidates": ["\xe2\x82"]}', 422),
    ("nested deep", DEEP, 422),
    ("not closed", b"[" * 1_500_000, 422),
    ("duplicate keys", b'{"prompt": "p", "prompt": "q", "candidates": ["a"]}', 422),
    ("duplicate keys, one wrong", b'{"prompt": "p", "candidates": ["a"], "prompt": 1}', 422),
    ("100,000 keys", b"{" + b",".join(b'"%d":1' % i for i in range(100_000)) + b"}", 422),
    ("zero bytes", b"\x00" * 1000, 422),
    ("a byte order mark", b"\xef\xbb\xbf" + bon(), 200),
    ("two documents", bon() + bon(), 422),
    ("nothing", b"", 422),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"), [case[1:] for case in BODIES], ids=[c[0] for c in BODIES]
)
def test_nasty_bodies(service: FakeService, body: bytes, status: int) -> None:
    assert post(service, body) == status


@pytest.mark.parametrize("path", ["/classify", "/pooling", "/score", "/rerank", "/get_reward"])
def test_nasty_bodies_of_dialects(service: FakeService, path: str) -> None:
    names = ("input", "text_1", "text_2", "query", "documents")
    for value in ("NaN", '"\\ud800"', "[" * 50_000, "1e999", '["a", 1]', "[]", "{}", "null"):
        body = "{" + ",".join(f'"{name}": {value}' for name in names) + "}"
        assert post(service, body.encode(), path=path) == 422
    for wrong in (["a"] * 16_385, ["a", *[1] * 15_000], [{}] * 15_000):
        many = json.dumps(dict.fromkeys(names, wrong)).encode()
        started_s = time.monotonic()
        assert post(service, many, path=path) == 422
        assert time.monotonic() - started_s < 60  # it does not list every wrong item


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", "\xff", "/" * 5000]
)
def test_other_content_types(service: FakeService, kind: str) -> None:
    assert post(service, bon(), f"content-type: {kind}") == 415


HEADERS = [
    *("x-request-id: \xff\xfe", "x-request-id: " + "a" * 5000, "accept: \xff" * 100),
    *("x-request-timeout-seconds: \xff", "x-request-timeout-seconds: 1e-9"),
    *("x-request-disconnect-disabled: \xff", "serve_multiplexed_model_id: \xff"),
    *("x-session-id: \xff", "cookie: " + "a=b; " * 5000, "x-forwarded-for: ,,,"),
    *("traceparent: 00-zz-zz-zz", "content-encoding: gzip", "authorization: Basic %%%"),
    *("authorization: Bearer \xff", "x-api-key: \xff"),
]


@pytest.mark.parametrize("line", HEADERS, ids=range(len(HEADERS)))
def test_header_junk_changes_nothing(service: FakeService, line: str) -> None:
    assert post(service, bon(), line) == 200


def test_a_caller_cannot_ask_to_be_scored_after_leaving(service: FakeService) -> None:
    assert post(service, bon(), "x-request-disconnect-disabled: ?1") == 422


def test_requests_that_are_none(service: FakeService) -> None:
    for junk in (b"\x16\x03\x01\x02\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"):
        assert status_of(service, junk) == 400
    assert status_of(service, head("content-length: -1")) == 400
    assert status_of(service, head("content-length: 5", "content-length: 6")) == 400
    # Which of the two lengths holds is what request smuggling lives on.
    assert status_of(service, head("content-length: 5", "transfer-encoding: chunked")) == 400
    upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    asked = head(*upgrade, "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==").replace(b"POST", b"GET")
    assert status_of(service, asked) in (403, 404)


def test_a_header_without_end_is_cut(service: FakeService) -> None:
    for key in (KEY, None):
        start = head(key=key)[:-2]
        assert status_of(service, start + b"x: " + b"a" * 100_000 + b"\r\n\r\n") in (0, 400)
        assert num_bytes_taken(service, start + b"x: ") < 20_000_000  # what sockets buffer
    path = "/" + "a" * 80_000
    assert status_of(service, head(path=path)) in (0, 400)


def test_a_body_over_the_limit_is_cut_while_it_comes(service: FakeService) -> None:
    announced = head(*JSON, "content-length: 999999999999")
    assert status_of(service, announced, *[b"a" * 100_000] * 30) == 413
    chunk = b"%x\r\n%s\r\n" % (100_000, b"a" * 100_000)
    chunked = head(*JSON, "transfer-encoding: chunked")
    started_s = time.monotonic()
    assert status_of(service, chunked, *[chunk] * 600) == 413
    assert time.monotonic() - started_s < 60


def test_a_body_without_a_key_is_not_read(service: FakeService) -> None:
    asked = head(*JSON, "content-length: 1000000", key="wrong")
    assert status_of(service, asked) == 401  # before the body
    assert ends_within(service, asked, 5, drip=True)  # who goes on sending is cut


def test_slow_bodies_are_cut(service: FakeService) -> None:
    """Ten at once, each a byte every 0.1 s, as slowloris does."""
    asked = head(*JSON, "content-length: 1000")
    started_s = time.monotonic()
    connections = [open_with(service, asked) for _ in range(10)]
    try:
        while time.monotonic() - started_s < BODY_TIMEOUT_S * 0.8:
            for connection in connections:
                connection.sendall(b"a")
            time.sleep(0.1)
        for connection in connections:
            assert connection.recv(4096).split()[1] == b"408"
        assert time.monotonic() - started_s > BODY_TIMEOUT_S * 0.5
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("start", [b"", b"POST /v1/bon HTTP/1.1\r\nx: "])
def test_slow_headers_are_cut(service: FakeService, start: bytes) -> None:
    assert ends_within(service, start, PATIENCE_S, drip=bool(start))


def test_chunks_that_are_none(service: FakeService) -> None:
    chunked = head(*JSON, "transfer-encoding: chunked")
    for junk in (b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"):
        assert status_of(service, chunked + junk) in (0, 400)
    # It ends in the middle of a body: nobody is there for an answer.
    with open_with(service, head(*JSON, "content-length: 1000"), b"{") as connection:
        connection.shutdown(socket.SHUT_WR)


def test_many_at_once_and_none_waits_for_another(service: FakeService) -> None:
    """Idle and half-sent connections beside a request."""
    idle = [open_with(service, b"" if i % 2 else head(*JSON)[:-2]) for i in range(200)]
    try:
        started_s = time.monotonic()
        assert post(service, bon()) == 200
        assert time.monotonic() - started_s < PATIENCE_S / 2
    finally:
        for connection in idle:
            connection.close()


def open_with(service: FakeService, *parts: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S)
    for part in parts:
        connection.sendall(part)
    return connection


def num_bytes_taken(service: FakeService, start: bytes) -> int:
    """How much of a header line without end it takes (of 60 MB) until it ends the connection."""
    num = 0
    with open_with(service, start) as connection:
        try:
            while num < 60_000_000:
                connection.sendall(b"a" * 100_000)
                num += 100_000
        except OSError:
            pass
    return num


def ends_within(service: FakeService, start: bytes, seconds: float, drip: bool = False) -> bool:
    """Whether the service ends a connection that never completes its request."""
    give_up_s = time.monotonic() + seconds
    with open_with(service, start) as connection:
        connection.settimeout(0.1)
        while time.monotonic() < give_up_s:
            try:
                if drip:
                    connection.sendall(b"a")
                if not connection.recv(4096):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
    return False
