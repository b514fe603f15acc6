"""Mixed load on the whole service (ingress and two replicas) for half an hour.

Every route, small and large requests, callers who leave, wrong keys, wrong and oversized bodies.
The engines are fake: what could grow is the service. Memory of each process is read every few
seconds; growth is that of the median of the last fifth over the median of the fifth after the
warm-up (a fifth of the time). Any status but those that were asked for is a failure.

    python -m benchmarks.serve_soak [--minutes 30] [--callers 8]
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks._fake_replica import FakeReplica, fake_recipe, write_fake_model
from benchmarks._results import one_result, options, write_results
from benchmarks._serve_load import INGRESS, SCORER, processes
from benchmarks._serving import SCRAPE_TOKEN, open_client, scraped
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.launch import ServiceHandle, running_service

MAX_BODY_BYTES = 1_000_000
EVERY_S = 2.0
_KINDS = {"ingress": INGRESS, "replica": SCORER}
# What a caller asks for, and which statuses are right answers to it. 429 is one to everything that
# is scored: the load may be more than there is room for.
Ask = Callable[[httpx.Client, random.Random], httpx.Response]


def _texts(choice: random.Random, most: int = 8) -> list[str]:
    return [f"{choice.random()} " * choice.randrange(1, 20) for _ in range(choice.randint(1, most))]


def _post(path: str, make: Callable[[random.Random], Any]) -> Ask:
    return lambda client, choice: client.post(path, json=make(choice))


def _wrong_key(client: httpx.Client, choice: random.Random) -> httpx.Response:
    headers = {"x-api-key": f"wrong-{choice.random()}"}
    return client.post("/v1/bon", json={"prompt": "p", "candidates": ["a"]}, headers=headers)


def _too_large(client: httpx.Client, choice: random.Random) -> httpx.Response:
    return client.post("/v1/bon", content=b"a" * (MAX_BODY_BYTES + choice.randrange(1, 2**20)))


ASKED: list[tuple[str, int, frozenset[int], Ask]] = [  # name, weight, statuses, what
    ("bon", 8, frozenset({200}), _post("/v1/bon", lambda c: _bon(c))),
    ("bon of 256", 1, frozenset({200}), _post("/v1/bon", lambda c: _bon(c, 256))),
    ("deadline", 2, frozenset({200, 504}), _post("/v1/bon", lambda c: _bon(c, deadline_ms=5))),
    ("classify", 3, frozenset({200}), _post("/classify", lambda c: {"input": _texts(c)})),
    ("sglang", 1, frozenset({200}), _post("/classify", lambda c: {"text": _texts(c)})),
    ("pooling", 1, frozenset({200}), _post("/pooling", lambda c: {"input": _texts(c)})),
    ("score", 2, frozenset({200}), _post("/score", lambda c: {"text_1": "p", "text_2": _texts(c)})),
    (
        "rerank",
        2,
        frozenset({200}),
        _post("/v1/rerank", lambda c: {"query": "p", "documents": _texts(c)}),
    ),
    ("get_reward", 2, frozenset({200}), _post("/get_reward", lambda c: {"query": _texts(c)})),
    ("too many", 1, frozenset({422}), _post("/v1/bon", lambda c: _bon(c, 257))),
    ("unknown field", 1, frozenset({422}), _post("/v1/bon", lambda c: _bon(c, x=1))),
    ("wrong key", 2, frozenset({401}), _wrong_key),
    ("too large", 1, frozenset({413}), _too_large),
    ("unknown path", 1, frozenset({404}), lambda client, c: client.get(f"/{c.random()}")),
    ("models", 1, frozenset({200}), lambda client, c: client.get("/v1/models")),
    ("page", 1, frozenset({200}), lambda client, c: client.get("/")),
    ("ready", 1, frozenset({200}), lambda client, c: client.get("/ready")),
]  # fmt: skip


def _bon(choice: random.Random, num: int | None = None, **more: Any) -> dict[str, Any]:
    texts = _texts(choice) if num is None else [f"{choice.random()}" for _ in range(num)]
    return {"prompt": f"prompt {choice.random()}", "candidates": texts, **more}


class Caller(threading.Thread):
    """Asks at random until `stop`; every so often leaves before the answer."""

    def __init__(self, service: ServiceHandle, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._service, self._choice, self._stopped = service, random.Random(number), stop
        self.num_by_status: Counter[str] = Counter()
        self.unexpected: list[str] = []

    def run(self) -> None:
        weights = [weight for _, weight, _, _ in ASKED]
        headers = {"x-api-key": self._service.api_key}
        with httpx.Client(
            base_url=self._service.url, headers=headers, timeout=60, trust_env=False
        ) as client:
            while not self._stopped.is_set():
                if self._choice.random() < 0.05:
                    self._leave(client)
                    continue
                (asked,) = self._choice.choices(ASKED, weights)
                self._ask(client, *asked)

    def _leave(self, client: httpx.Client) -> None:
        body = _bon(self._choice, 64)
        try:
            client.post("/v1/bon", json=body, timeout=self._choice.uniform(0.001, 0.1))
        except httpx.TimeoutException:
            self.num_by_status["left"] += 1

    def _ask(
        self, client: httpx.Client, name: str, weight: int, right: frozenset[int], ask: Ask
    ) -> None:
        try:
            status = str(ask(client, self._choice).status_code)
        except httpx.HTTPError as error:
            # The service need not listen to the end of a body that it has refused.
            status = "cut" if name == "too large" else type(error).__name__
        self.num_by_status[status] += 1
        if status not in {*map(str, right), "429", "cut"}:
            self.unexpected.append(f"{name}: {status}")


def memory_by_kind() -> dict[str, float]:
    """MiB of each kind of process, all of a kind together."""
    return {
        kind: sum(_rss_mb(process) for process in processes(title))
        for kind, title in _KINDS.items()
    }


def _rss_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.Error:
        return 0.0


def soak(minutes: float, num_callers: int) -> list[dict[str, Any]]:
    samples: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="serve soak ") as scratch:
        model = write_fake_model(Path(scratch) / "model", tokens_per_s=50_000)
        recipe = fake_recipe(
            num_replicas=2,
            max_body_bytes=MAX_BODY_BYTES,
            metrics_token_sha256=[digest_of(SCRAPE_TOKEN)],
        )
        with running_service(recipe, model, replica_class=FakeReplica) as service:
            stop = threading.Event()
            callers = [Caller(service, number, stop) for number in range(num_callers)]
            for caller in callers:
                caller.start()
            end_s = time.monotonic() + 60 * minutes
            while time.monotonic() < end_s:
                for kind, mb in memory_by_kind().items():
                    samples[kind].append(mb)
                tokens_left(service)
                time.sleep(EVERY_S)
            stop.set()
            for caller in callers:
                caller.join(120)
            left = tokens_left(service)
    by_status = sum((caller.num_by_status for caller in callers), Counter())
    unexpected = [text for caller in callers for text in caller.unexpected]
    return results_of(minutes, samples, by_status, unexpected, left)


def tokens_left(service: ServiceHandle) -> float:
    """Tokens that are counted as in flight or waiting: none when nobody asks any more."""
    with open_client(service.url, service.api_key) as client:
        return sum(scraped(client, f"codepmp_tokens_{name}") for name in ("in_flight", "waiting"))


def results_of(
    minutes: float,
    samples: dict[str, list[float]],
    by_status: Counter[str],
    unexpected: list[str],
    left: float,
) -> list[dict[str, Any]]:
    common = {"minutes": minutes}
    results: list[dict[str, Any]] = [
        one_result(
            "soak_unexpected_answers",
            len(unexpected),
            f"of {by_status.total()} requests",
            0,
            **common,
            by_status=dict(sorted(by_status.items())),
            examples=dict(Counter(unexpected).most_common(10)),
        ),
        one_result("soak_tokens_left", left, "tokens", 0, **common),
    ]
    for kind, values in samples.items():
        fifth = max(len(values) // 5, 1)
        warm, last = (
            statistics.median(values[fifth : 2 * fifth]),
            statistics.median(values[-fifth:]),
        )
        results.append(
            one_result(
                f"soak_growth_{kind}",
                round(last - warm, 1),
                "MiB",
                **common,
                start_mb=round(values[0], 1),
                warm_mb=round(warm, 1),
                end_mb=round(last, 1),
                mb_a_minute=round((last - warm) / max(0.7 * minutes, 1e-9), 3),
            )
        )
    return results


def main() -> None:
    arguments = options(__doc__, minutes=30.0, callers=8).parse_args()
    write_results("serve_soak", soak(arguments.minutes, arguments.callers))


if __name__ == "__main__":
    main()
