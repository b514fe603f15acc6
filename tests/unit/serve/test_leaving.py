"""Who leaves early, callers and replicas: nothing stays behind, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import DeploymentUnavailableError

from benchmarks._fake_scoring import FakeBackend, FakeScorer
from codepmp_ray.errors import DeadlineError, InputError
from codepmp_ray.scoring.best_of_n import ScoringRequest
from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.draining import Doors
from codepmp_ray.serve.errors import Unavailable
from codepmp_ray.serve.handle_backend import HandleBackend
from codepmp_ray.serve.weights import Weights
from tests.unit.serve.http_fakes import HEADERS, SETTINGS, bon, error_of, request_scope

SLOW = SETTINGS.model_copy(
    update={
        "max_concurrent_requests": 1,
        "max_waiting_bytes": 100_000_000,
        "metrics_token_sha256": (digest_of("scrape"),),
    }
)


async def call(app: Any, num_candidates: int) -> list[dict[str, Any]]:
    body = {"prompt": "p", "candidates": [f"{i:0100}" for i in range(num_candidates)]}
    parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await app(request_scope(), receive, send)
    return sent


def test_a_request_that_is_cancelled_gives_back_turn_and_tokens() -> None:
    """Serve cancels the application's task when the caller is gone."""
    scorer = FakeScorer(tokens_per_s=1_000)
    doors = Doors()
    app = create_app(SLOW, FakeBackend(scorer), doors)

    def figures() -> str:
        with TestClient(app) as client:
            return client.get("/metrics", headers={"x-api-key": "scrape"}).text

    async def test() -> None:
        scored = asyncio.create_task(call(app, 100))  # 10 s of work
        await until(lambda: scorer.num["started"] == 1)
        waiting = asyncio.create_task(call(app, 100))
        await until(lambda: doors.num_inside == 2)
        await asyncio.sleep(0.05)
        for task in (waiting, scored):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert scorer.num == {"started": 1, "finished": 0, "cancelled": 1}
        assert doors.num_inside == 0
        sent = await asyncio.wait_for(call(app, 1), 5)  # its turn comes at once
        assert sent[0]["status"] == 200

    asyncio.run(test())
    assert "codepmp_tokens_in_flight 0.0" in figures()
    assert "codepmp_tokens_waiting 0.0" in figures()
    # Nothing was sent: counted as nginx counts callers who closed the connection.
    assert 'codepmp_requests_total{route="/v1/bon",status="499"} 2.0' in figures()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


def test_callers_who_leave_in_one_tick_take_no_capacity_along() -> None:
    scorer = FakeScorer(tokens_per_s=100_000)
    app = create_app(SLOW.model_copy(update={"max_concurrent_requests": 8}), FakeBackend(scorer))

    async def test() -> None:
        leaving = [asyncio.create_task(call(app, 30)) for _ in range(60)]
        staying = [asyncio.create_task(call(app, 2)) for _ in range(10)]
        await until(lambda: scorer.num["started"] >= 8)
        for task in leaving:
            task.cancel()
        for task in staying:
            sent = await asyncio.wait_for(task, 10)
            assert sent[0]["status"] == 200
        await asyncio.gather(*leaving, return_exceptions=True)
        sent = await asyncio.wait_for(call(app, 100), 10)
        assert sent[0]["status"] == 200

    asyncio.run(test())
    with TestClient(app) as client:
        figures = client.get("/metrics", headers={"x-api-key": "scrape"}).text
    assert "codepmp_tokens_in_flight 0.0" in figures and "codepmp_tokens_waiting 0.0" in figures
    assert 'status="500"' not in figures


def test_closed_doors_let_nobody_in_and_show_it() -> None:
    doors = Doors()
    app = create_app(SLOW, FakeBackend(FakeScorer()), doors)
    with TestClient(app, raise_server_exceptions=False, headers=HEADERS) as client:
        assert bon(client).status_code == 200 and doors.num_inside == 0
        doors.are_closing = True
        refused = bon(client)
        assert error_of(refused, 503)["code"] == "service_unavailable"
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        assert client.post("/v1/bon", headers={"Authorization": "no"}).status_code == 401


class Replies:
    """Of a broadcast."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies = replies

    async def results_async(self) -> list[Any]:
        return self.replies


class ReadyHandle:
    """Counts who asks its replica."""

    def __init__(self) -> None:
        self.num, self.error = 0, None

    def options(self, **_: Any) -> ReadyHandle:
        return self

    @property
    def check_ready(self) -> ReadyHandle:
        return self

    async def remote(self) -> None:
        self.num += 1
        await asyncio.sleep(0.01)
        if self.error:
            raise self.error


def test_whoever_asks_whether_it_is_ready_costs_the_replicas_one_call_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = ReadyHandle()
    made: Any = handle

    async def test() -> None:
        backend = HandleBackend(made)
        await asyncio.gather(*(backend.check_ready() for _ in range(50)))
        assert handle.num == 1
        monkeypatch.setattr("codepmp_ray.serve.handle_backend._READY_AGE_S", 0.0)
        handle.error = DIED[0]
        asked = [backend.check_ready() for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(item) for item in found} == {Unavailable}

    asyncio.run(test())


class WeightsHandle:
    """Two replicas, one of which was told of other weights; keeps what calls say of them."""

    def __init__(self, *known: Weights) -> None:
        self.known, self.told = list(known), []
        self.refusal: InputError | None = None

    def broadcast(self, method: str, *values: Any) -> Replies:
        if method == "newest_weights":
            return Replies(self.known)
        return Replies([None, self.refusal])

    def options(self, **_: Any) -> WeightsHandle:
        return self

    @property
    def score(self) -> WeightsHandle:
        return self

    async def remote(self, requests: Any, weights: Any) -> list[str]:
        self.told.append(weights)
        return ["answer"]


def test_an_ingress_that_was_started_again_learns_the_weights_of_its_own_service() -> None:
    newest = Weights(5, "/new", "ab" * 32, base="base")
    handle = WeightsHandle(Weights(0), newest, Weights(9, "/x", "cd" * 32, base="another service"))
    made: Any = handle

    async def test() -> None:
        backend = HandleBackend(made, "base")
        await backend.score([])
        newer = Weights(6, "/newer", "ef" * 32, base="base")
        handle.refusal = InputError("The configurations differ.")
        with pytest.raises(InputError, match="configurations differ"):
            await backend.load_weights(newer)
        await backend.score([])
        handle.refusal = None
        await backend.load_weights(newer)
        await backend.score([])
        assert handle.told == [newest, newest, newer]
        plain = HandleBackend(made)  # nothing may be loaded: nobody is asked
        await plain.score([])
        assert handle.told[-1] is None

    asyncio.run(test())


class Handle:
    """Stands in for a deployment handle: each call ends as `outcomes` say."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[list[ScoringRequest]] = []
        self.ways: list[str] = []

    def options(self, *, _by_reference: bool) -> Any:
        assert not _by_reference
        return Direct(self)

    @property
    def score(self) -> Handle:
        return self

    async def remote(self, requests: list[ScoringRequest], weights: Any = None) -> Any:
        return await self.answer("Ray", requests)

    async def answer(self, way: str, requests: list[ScoringRequest]) -> Any:
        self.asked.append(requests)
        self.ways.append(way)
        outcome = self.outcomes.pop(0)
        if outcome == "never":
            await asyncio.Event().wait()
        if isinstance(outcome, tuple):
            raise outcome[0]
        return outcome


class Direct:
    """The same handle, by gRPC."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    @property
    def score(self) -> Direct:
        return self

    async def remote(self, requests: list[ScoringRequest], weights: Any = None) -> Any:
        return await self.handle.answer("gRPC", requests)


def score(handle: Handle, timeout_s: float | None = None) -> Any:
    made: Any = handle
    request = ScoringRequest("p", ["a"], timeout_s=timeout_s)
    return asyncio.run(HandleBackend(made).score([request]))


DIED, AWAY = (ActorDiedError(),), (ActorUnavailableError("away", b"\x00" * 16),)
NOT_DEPLOYED = (DeploymentUnavailableError.__new__(DeploymentUnavailableError),)


@pytest.mark.parametrize("death", [DIED, AWAY])
def test_a_call_whose_replica_dies_goes_to_another_once(death: Any) -> None:
    """The second time by Ray, whose router then learns which replica is dead."""
    handle = Handle(death, ["answer"])
    assert score(handle) == ["answer"] and handle.ways == ["gRPC", "Ray"]
    killer = Handle(death, death, ["answer"])
    with pytest.raises(Unavailable):
        score(killer)
    assert len(killer.asked) == 2


def test_other_failures_are_not_repeated() -> None:
    handle = Handle(NOT_DEPLOYED)
    with pytest.raises(Unavailable):
        score(handle)
    assert len(handle.asked) == 1
    refused = [InputError("too long")]
    assert score(Handle(refused)) == refused


def test_a_deadline_holds_without_a_replica_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codepmp_ray.serve.handle_backend._GRACE_S", 0.1)
    with pytest.raises(DeadlineError, match="No replica"):
        score(Handle("never"), timeout_s=0.05)
    handle = Handle(DIED, ["answer"])
    assert score(handle, timeout_s=5.0) == ["answer"]
    left_s = handle.asked[1][0].timeout_s
    assert left_s is not None and 4.0 < left_s < 5.0  # what passed before counts
