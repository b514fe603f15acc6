"""The HTTP application over the fake scorer, alone in a process: its memory is the service's own.

Connections have the limits that they have in Ray Serve's proxy (serve/connection.py).

`python -m benchmarks._fake_service` prints its port and serves until its standard input closes.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import uvicorn

from benchmarks._fake_scoring import FakeBackend, FakeScorer
from benchmarks._results import free_port
from codepmp_ray.config.base import Section
from codepmp_ray.serve import connection
from codepmp_ray.serve.answer_schemas import Calibration
from codepmp_ray.serve.app import ServiceSettings, create_app
from codepmp_ray.serve.auth import digest_of

KEY = "a-key-for-benchmarks"
SCRAPE_TOKEN = "a-scrape-token-for-benchmarks"


class FakeServiceOptions(Section):
    """What differs from test to test."""

    port: int
    tokens_per_s: float | None = None
    max_body_bytes: int = 2_000_000
    body_timeout_s: float = 60.0
    headers_timeout_s: float = 20.0
    linger_s: float = 10.0
    max_concurrent_requests: int = 64


@dataclass(frozen=True)
class FakeService:
    url: str
    port: int
    process: psutil.Process

    def memory_mb(self) -> float:
        """Resident memory of the service's process."""
        return self.process.memory_info().rss / 2**20


@contextmanager
def fake_service(**options: object) -> Iterator[FakeService]:
    """The service in a child process for the time of the block."""
    chosen = FakeServiceOptions.model_validate({"port": free_port(), **options})
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._fake_service", chosen.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        if child.stdout.readline().strip() != "ready":
            raise RuntimeError("the fake service did not start")
        url = f"http://127.0.0.1:{chosen.port}"
        yield FakeService(url, chosen.port, psutil.Process(child.pid))
    finally:
        child.stdin.close()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def settings_of(options: FakeServiceOptions) -> ServiceSettings:
    return ServiceSettings(
        model_name="fake",
        api_key_sha256=(digest_of(KEY),),
        metrics_token_sha256=(digest_of(SCRAPE_TOKEN),),
        max_body_bytes=options.max_body_bytes,
        body_timeout_s=options.body_timeout_s,
        max_concurrent_requests=options.max_concurrent_requests,
        calibration=Calibration(mean=0.0, std=1.0),
    )


def main() -> None:
    options = FakeServiceOptions.model_validate_json(sys.argv[1])
    scorer = FakeScorer(tokens_per_s=options.tokens_per_s)
    app = create_app(settings_of(options), FakeBackend(scorer))
    connection.HEADERS_TIMEOUT_S, connection.LINGER_S = options.headers_timeout_s, options.linger_s
    connection.guard_connections()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list | None = None) -> None:
            await super().startup(sockets)
            print("ready", flush=True)

    server = Server(uvicorn.Config(app, port=options.port, log_level="critical"))

    def end_with_parent() -> None:
        sys.stdin.read()
        server.force_exit = server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
