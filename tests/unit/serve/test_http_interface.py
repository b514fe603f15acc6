"""The HTTP interface over a fake scorer: forms of answers, keys, routes and errors."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.errors import ApiError
from tests.unit.serve.http_fakes import (
    KEY,
    SETTINGS,
    FakeBackend,
    bon,
    error_of,
)


def test_answer_has_the_documented_form(client: TestClient) -> None:
    answer = bon(client, model="tiny", candidates=["aa", "b", "aa", "cccc"]).json()
    assert answer.pop("id").startswith("bon-")
    usage = answer.pop("usage")
    assert usage == {"prompt_tokens": 20, "candidate_tokens": 3 + 2 + 5, "cached_prompt_tokens": 3}
    fields = ("index", "score", "rank", "num_tokens", "truncated", "duplicate_of", "probability")
    rows = [(0, 3.0, 2, 3, False, None), (1, 2.0, 4, 2, False, None)]
    rows += [(2, 3.0, 3, 3, False, 0), (3, 5.0, 1, 5, False, None)]
    data = [dict(zip(fields, (*row, None), strict=True)) for row in rows]
    expected = {"object": "best_of_n", "model": "tiny", "best_index": 3, "partial": False}
    assert answer == expected | {"data": data}


def test_messages_and_prompt_give_the_same_score(client: TestClient) -> None:
    messages = [{"role": "user", "content": "p"}]
    by_messages = client.post("/v1/bon", json={"messages": messages, "candidates": ["a"]}).json()
    assert by_messages["usage"] == bon(client).json()["usage"]


def test_top_n_keeps_the_best_and_their_indices(client: TestClient) -> None:
    answer = bon(client, candidates=["a", "bbb", "cc", "dddd"], top_n=2).json()
    assert [(item["index"], item["rank"]) for item in answer["data"]] == [(1, 2), (3, 1)]
    assert answer["best_index"] == 3


def test_a_deadline_gives_what_is_there_and_says_so(client: TestClient) -> None:
    answer = bon(client, candidates=["a", "bbb"], deadline_ms=50).json()
    assert answer["partial"] and answer["best_index"] == 0
    assert [(item["score"], item["rank"]) for item in answer["data"]] == [(2.0, 1), (None, None)]
    for wrong in (0, -1, 1.5, "5"):
        assert error_of(bon(client, deadline_ms=wrong), 422)["param"] == "deadline_ms"


def test_scores_are_raw_unless_asked_for_otherwise(client: TestClient) -> None:
    answer = bon(client, candidates=["a", "bb"], normalize=True, probabilities=True).json()
    assert [item["score"] for item in answer["data"]] == [(2 - 2.0) / 0.5, (3 - 2.0) / 0.5]
    chances = [item["probability"] for item in answer["data"]]
    assert sum(chances) == pytest.approx(1)
    assert chances[1] / chances[0] == pytest.approx(math.e)  # the raw rewards differ by one


def test_normalized_scores_need_a_calibration(backend: FakeBackend) -> None:
    settings = SETTINGS.model_copy(update={"calibration": None})
    client = TestClient(create_app(settings, backend), headers={"x-api-key": KEY})
    assert error_of(bon(client, normalize=True), 422)["param"] == "normalize"


def test_models_health_ready(client: TestClient, backend: FakeBackend) -> None:
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    backend.is_ready = False
    try:
        response = client.get("/ready")
    finally:
        backend.is_ready = True
    error_of(response, 503)
    assert response.headers["retry-after"]


def test_a_model_card_says_which_weights_answer(backend: FakeBackend) -> None:
    told = {"weights_digest": "ab" * 32, "max_model_len": 512, "dtype": "bfloat16"}
    settings = SETTINGS.model_copy(update=told)
    client = TestClient(create_app(settings, backend), headers={"x-api-key": KEY})
    (card,) = client.get("/v1/models").json()["data"]
    assert {name: card[name] for name in told} == told


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + digest_of(KEY)},
        {"x-api-key": ""},
        {"x-api-key": b"\xff\xfe"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/bon"),
        ("GET", "/v1/models"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/nothing"),
        ("GET", "/health/"),
        ("GET", "http://testserver//health"),
        ("POST", "/health"),
        ("POST", "/classify"),
    ],
)
def test_everything_else_is_401_without_a_key(
    backend: FakeBackend, headers: dict[str, Any], method: str, path: str
) -> None:
    client = TestClient(create_app(SETTINGS, backend), raise_server_exceptions=False)
    response = client.request(method, path, headers=headers)
    assert error_of(response, 401)["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/health").status_code == client.get("/ready").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": KEY}, {"authorization": f"bearer  {KEY} "}, {"x-api-key": "an older key"}],
)
def test_keys_are_taken_from_both_headers(backend: FakeBackend, headers: dict[str, str]) -> None:
    client = TestClient(create_app(SETTINGS, backend), headers=headers)
    assert bon(client).status_code == 200


def test_unknown_routes_methods_and_models(client: TestClient) -> None:
    assert error_of(client.get("/nothing"), 404)["code"] == "not_found"
    response = client.get("/v1/bon")
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    error = error_of(bon(client, model="other"), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_failures_of_the_engine_show_nothing_internal(client: TestClient) -> None:
    error = error_of(bon(client, prompt="crash"), 500)
    assert "secret" not in json.dumps(error)
    response = bon(client, prompt="away")
    assert error_of(response, 503)["code"] == "service_unavailable"
    assert int(response.headers["retry-after"]) > 0


def test_errors_can_always_be_sent() -> None:
    """Whatever text ends in a message, it is encoded and short."""
    body = json.loads(bytes(ApiError(422, "\ud800" * 9_000, param="\udfff").response().body))
    assert body["error"]["param"] == "?"
    assert len(body["error"]["message"]) < 600


def test_openapi_describes_the_route_and_its_errors(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/bon"]["post"]
    assert {"200", "401", "413", "422", "429", "503"} <= set(operation["responses"])
    reference = operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/ErrorBody")
