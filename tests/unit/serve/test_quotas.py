"""Limits of a key in a minute: off by default, refilled evenly, of nobody else."""

from __future__ import annotations

import random

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.errors import ApiError
from codepmp_ray.serve.quotas import Quotas
from tests.unit.serve.http_fakes import HEADERS, SETTINGS, FakeBackend, bon, error_of


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_nobody_is_limited_unless_it_is_asked_for() -> None:
    quotas = Quotas({"requests": None, "tokens": None})
    for _ in range(10_000):
        quotas.enter("a")
        quotas.use("a", "tokens", 10**9)


@pytest.mark.parametrize("unit", ["requests", "tokens"])
@pytest.mark.parametrize("per_minute", [1, 60, 6_000])
@pytest.mark.parametrize("seed", range(5))
def test_over_any_time_a_key_gets_its_rate_and_a_minute_s_burst(
    unit: str, per_minute: int, seed: int
) -> None:
    """Whoever comes back when told to is let in, and no key pays for another."""
    rng, clock = random.Random(seed), Clock()
    quotas = Quotas({unit: per_minute}, clock)
    used = {"a": 0, "b": 0}
    for _ in range(500):
        caller = rng.choice("ab")
        try:
            quotas.enter(caller)
        except ApiError as error:
            assert (error.status, error.code) == (429, "quota_exceeded")
            assert error.retry_after_s is not None and error.retry_after_s >= 1
            if rng.random() < 0.3:
                clock.now_s += error.retry_after_s
                quotas.enter(caller)
            else:
                clock.now_s += rng.random()
                continue
        num = 1 if unit == "requests" else rng.randint(1, per_minute)
        if unit == "tokens":
            quotas.use(caller, "tokens", num)
        used[caller] += num
        over = per_minute  # the last call of a key may overdraw
        assert used[caller] <= per_minute * (1 + clock.now_s / 60) + over
    assert min(used.values()) >= min(per_minute, 100)  # both had their burst


def test_the_service_refuses_with_the_time_to_come_back() -> None:
    changes = {"requests_per_minute": 2, "tokens_per_minute": 1_000_000}
    client = TestClient(create_app(SETTINGS.model_copy(update=changes), FakeBackend()))
    for _ in range(2):
        assert bon(client=_with(client, HEADERS)).status_code == 200
    refused = bon(client=_with(client, HEADERS))
    assert error_of(refused, 429)["code"] == "quota_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    other = {"authorization": "Bearer an older key"}
    assert bon(client=_with(client, other)).status_code == 200
    assert client.get("/v1/models", headers=HEADERS).status_code == 200  # it scores nothing


def test_tokens_that_were_scored_are_what_counts() -> None:
    changes = {"tokens_per_minute": 50}
    app = create_app(SETTINGS.model_copy(update=changes), FakeBackend())
    client = _with(TestClient(app), HEADERS)
    assert bon(client, candidates=["a" * 300]).status_code == 200  # the first overdraws
    refused = bon(client)
    assert "50 tokens a minute" in error_of(refused, 429)["message"]
    assert int(refused.headers["retry-after"]) > 60  # what is overdrawn is waited for, too


def _with(client: TestClient, headers: dict[str, str]) -> TestClient:
    client.headers.update(headers)
    return client
