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
from codepmp_ray.serve.deployments import HandleBackend
from codepmp_ray.serve.draining import Doors
from codepmp_ray.serve.errors import Unavailable
from tests.unit.serve.http_fakes import HEADERS, SETTINGS, bon, error_of, request_scope

SLOW = SETTINGS.model_copy(
    update={
        "max_concurrent_requests": 1,
        "max_waiting_tokens": 1_000_000,
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


class Handle:
    """Stands in for a deployment handle: each call ends as `outcomes` say."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[list[ScoringRequest]] = []

    @property
    def score(self) -> Handle:
        return self

    async def remote(self, requests: list[ScoringRequest]) -> Any:
        self.asked.append(requests)
        outcome = self.outcomes.pop(0)
        if outcome == "never":
            await asyncio.Event().wait()
        if isinstance(outcome, tuple):
            raise outcome[0]
        return outcome


def score(handle: Handle, timeout_s: float | None = None) -> Any:
    made: Any = handle
    request = ScoringRequest("p", ["a"], timeout_s=timeout_s)
    return asyncio.run(HandleBackend(made).score([request]))


DIED, AWAY = (ActorDiedError(),), (ActorUnavailableError("away", b"\x00" * 16),)
NOT_DEPLOYED = (DeploymentUnavailableError.__new__(DeploymentUnavailableError),)


@pytest.mark.parametrize("death", [DIED, AWAY])
def test_a_call_whose_replica_dies_goes_to_another_once(death: Any) -> None:
    handle = Handle(death, ["answer"])
    assert score(handle) == ["answer"] and len(handle.asked) == 2
    killer = Handle(death, death, ["answer"])
    with pytest.raises(Unavailable):
        score(killer)
    assert len(killer.asked) == 2


def test_other_failures_are_not_repeated() -> None:
    for outcome, kind in ((NOT_DEPLOYED, Unavailable), (InputError("too long"), InputError)):
        handle = Handle(outcome)
        with pytest.raises(kind):
            score(handle)
        assert len(handle.asked) == 1


def test_a_deadline_holds_without_a_replica_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codepmp_ray.serve.deployments._GRACE_S", 0.1)
    with pytest.raises(DeadlineError, match="No replica"):
        score(Handle("never"), timeout_s=0.05)
    handle = Handle(DIED, ["answer"])
    assert score(handle, timeout_s=5.0) == ["answer"]
    left_s = handle.asked[1][0].timeout_s
    assert left_s is not None and 4.0 < left_s < 5.0  # what passed before counts
