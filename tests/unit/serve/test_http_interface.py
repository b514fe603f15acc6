"""The HTTP interface over a fake scorer: forms of answers, keys, routes and errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.errors import ApiError
from tests.unit.serve.http_fakes import (
    KEY,
    NAN_LENGTH,
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


@pytest.fixture(scope="module")
def stranger() -> TestClient:
    """Without a key; nothing that it asks for changes the application."""
    return TestClient(create_app(SETTINGS, FakeBackend()), raise_server_exceptions=False)


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
        ("POST", "/health"),
        ("POST", "/health/"),
        ("GET", "/health/x"),
        ("GET", "/admin/weights"),
        ("POST", "/classify"),
    ],
)
def test_everything_else_is_401_without_a_key(
    stranger: TestClient, headers: dict[str, Any], method: str, path: str
) -> None:
    response = stranger.request(method, path, headers=headers)
    assert error_of(response, 401)["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert stranger.get("/health").status_code == stranger.get("/ready").status_code == 200


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


def test_many_prompts_in_one_call_cost_each_other_nothing(client: TestClient) -> None:
    requests = [{"prompt": "p", "candidates": ["a" * (1 + i % 9), "b"]} for i in range(300)]
    requests[7] = {"prompt": "p" * 600, "candidates": ["a"]}  # leaves no room for an answer
    requests[8] = {"messages": [{"role": "user", "content": "p"}], "candidates": ["abc"]}
    requests[9] = {"messages": [{"role": "user", "content": None}], "candidates": ["abc"]}
    requests[10]["top_n"] = 1
    answer = client.post("/v1/bon", json={"requests": requests, "probabilities": True}).json()
    assert answer["object"] == "best_of_n.list" and not answer["partial"]
    results = answer["results"]
    assert [item["index"] for item in results] == list(range(300))
    assert {i for i, item in enumerate(results) if "error" in item} == {7, 9}
    assert "leaves no room" in results[7]["error"]["message"]
    assert results[7]["best_index"] is None and results[7]["data"] == []
    for index in (0, 11, 299):
        (first, second) = results[index]["data"]
        alone = bon(client, **requests[index], probabilities=True).json()
        assert [first, second] == alone["data"] and results[index]["usage"] == alone["usage"]
    assert len(results[10]["data"]) == 1 and results[8]["data"][0]["score"] == 4.0
    answer = client.post("/v1/bon", json={"requests": [requests[9]]}).json()
    assert "no content" in answer["results"][0]["error"]["message"]
    few = [{"prompt": "p", "candidates": ["a"]}] * 1_025
    assert error_of(client.post("/v1/bon", json={"requests": few}), 422)["param"] == "requests"
    wide = [{"prompt": "p", "candidates": ["a"] * 201}]
    error = error_of(client.post("/v1/bon", json={"requests": wide}), 422)
    assert error["param"] == "requests.0.candidates" and "max_candidates=200" in error["message"]
    wrong = [{"prompt": "p", "candidates": ["a"]}, {"prompt": "p", "candidates": [5]}]
    error = error_of(client.post("/v1/bon", json={"requests": wrong}), 422)
    assert error["param"] == "requests.1.candidates.0"


def test_one_deadline_is_for_all_prompts(client: TestClient) -> None:
    requests = [{"prompt": "p", "candidates": ["a", "bbb"]}] * 3
    answer = client.post("/v1/bon", json={"requests": requests, "deadline_ms": 50}).json()
    assert answer["partial"] and all(item["partial"] for item in answer["results"])
    assert answer["results"][2]["data"][1]["missing"] == "deadline"


def test_one_reward_that_is_no_number_is_a_null(client: TestClient) -> None:
    answer = bon(client, candidates=["a", "x" * (NAN_LENGTH - 1), "bbb"], probabilities=True).json()
    assert [item["score"] for item in answer["data"]] == [2.0, None, 4.0]
    assert answer["data"][1]["missing"] == "not_finite" and not answer["partial"]
    assert answer["best_index"] == 2 and answer["data"][1]["rank"] is None


def test_a_caller_says_how_a_text_is_cut(client: TestClient) -> None:
    long = {"candidates": ["a" * 600, "b"]}
    assert bon(client, **long).headers["x-codepmp-truncated"] == "1"
    assert "Text 0" in error_of(bon(client, **long, truncate="refuse"), 422)["message"]
    answer = bon(client, prompt="p" * 600, truncate="left")
    assert answer.json()["data"][0]["truncated"]


@pytest.mark.parametrize("extra", [{"x": 1}, {"annotations": []}, {"audio": None, "name": None}])
def test_messages_are_those_that_clients_dump(client: TestClient, extra: dict[str, Any]) -> None:
    """As `message.model_dump()` of the openai package writes them, parts of text included."""
    dumped = {"refusal": None, "tool_calls": None, "function_call": None, **extra}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "p"}], **dumped},
    ]
    found = client.post("/v1/bon", json={"messages": messages, "candidates": ["a"]}).json()
    assert found["usage"] == bon(client).json()["usage"]
    talk = [*messages, {"role": "assistant", "content": "a", **dumped}]
    assert client.post("/classify", json={"messages": talk}).status_code == 200


def test_deep_arguments_and_half_characters_in_them_are_refused(client: TestClient) -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    for arguments in (deep, {"a": "\ud800"}, {"\ud800": "a"}):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        messages = [{"role": "assistant", "content": "a", "tool_calls": [call]}]
        messages += [{"role": "user", "content": "p"}]
        body = json.dumps({"messages": messages, "candidates": ["a"]})
        answer = client.post("/v1/bon", content=body, headers={"content-type": "application/json"})
        assert error_of(answer, 422)["param"] == "messages.0.tool_calls"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/v1/models", "/openapi.json"])
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    answer, head = client.get(path), client.head(path)
    assert head.status_code == answer.status_code == 200 and head.content == b""
    assert head.headers["content-type"] == answer.headers["content-type"]
    assert client.head("/v1/bon").status_code == 405 and client.head("/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/v1/bon/", "//v1/bon", "/v1//bon", "///v1/bon//"])
def test_slashes_that_mean_nothing_are_none(client: TestClient, path: str) -> None:
    body = {"prompt": "p", "candidates": ["a"]}
    assert client.post(f"http://testserver{path}", json=body).status_code == 200


def test_a_model_is_found_by_its_name(client: TestClient, backend: FakeBackend) -> None:
    assert client.get("/v1/models/tiny").json()["id"] == "tiny"
    assert error_of(client.get("/v1/models/other"), 404)["code"] == "model_not_found"
    settings = SETTINGS.model_copy(update={"model_name": "org/tiny rm"})
    named = TestClient(create_app(settings, backend), headers={"x-api-key": KEY})
    assert named.get("/v1/models/org/tiny%20rm").json()["id"] == "org/tiny rm"


def prefixed(app: Any, prefix: str) -> Any:
    """As Ray Serve calls an application at a route prefix: the path stays whole."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": prefix}
        await app(scope, receive, send)

    return called


def test_a_route_prefix_changes_no_rule(backend: FakeBackend) -> None:
    settings = SETTINGS.model_copy(update={"metrics_token_sha256": (digest_of("scrape"),)})
    app = prefixed(create_app(settings, backend), "/rm")
    with TestClient(app, follow_redirects=False) as client:
        for path in ("/rm/health", "/rm/ready", "/rm/"):
            assert client.get(path).status_code == 200, path
        assert client.get("/rm").headers["location"] == "/rm/"
        body, key = {"prompt": "p", "candidates": ["a"]}, {"x-api-key": KEY}
        assert client.post("/rm/v1/bon", json=body).status_code == 401
        assert client.post("/rm/v1/bon", json=body, headers=key).status_code == 200
        assert client.get("/rm/metrics", headers=key).status_code == 401
        figures = client.get("/rm/metrics", headers={"x-api-key": "scrape"}).text
        assert 'codepmp_requests_total{route="/v1/bon",status="200"} 1.0' in figures
        assert client.get("/rm/v1/models", headers={"x-api-key": "scrape"}).status_code == 401
        servers = client.get("/rm/openapi.json", headers=key).json()["servers"]
        assert servers == [{"url": "/rm"}]


def test_web_pages_may_call_where_they_are_named(backend: FakeBackend) -> None:
    settings = SETTINGS.model_copy(update={"cors_origins": ("https://page.example",)})
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization, content-type"
    with TestClient(create_app(settings, backend)) as client:
        allowed = client.options("/v1/bon", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        other = client.options("/v1/bon", headers=asked | {"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        key = {"x-api-key": KEY, "origin": "https://page.example"}
        assert "x-request-id" in client.get("/v1/models", headers=key).headers[
            "access-control-expose-headers"
        ]  # fmt: skip
    with TestClient(create_app(SETTINGS, backend)) as client:
        assert client.options("/v1/bon", headers=asked).status_code == 401


def test_openapi_tells_a_generated_client_where_the_key_goes(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
    assert {"bearer": []} in schema["security"]
    assert schema["paths"]["/health"]["get"]["security"] == []
    assert "security" not in schema["paths"]["/v1/bon"]["post"]
    names = [
        operation["operationId"] for path in schema["paths"].values() for operation in path.values()
    ]
    assert len(set(names)) == len(names) and {"bon", "classify", "rerank"} <= set(names)


def test_weights_change_for_whoever_may(backend: FakeBackend, tmp_path: Path) -> None:
    first, second = "ab" * 32, "cd" * 32
    settings = SETTINGS.model_copy(
        update={
            "weights_digest": first,
            "admin_key_sha256": (digest_of("admin"),),
            "weight_roots": (str(tmp_path), "s3://bucket/rewards"),
        }
    )
    body = {"path": str(tmp_path / "new"), "weights_digest": second}
    with TestClient(create_app(SETTINGS, backend), headers={"x-api-key": KEY}) as closed:
        error_of(closed.post("/admin/weights", json=body), 401)
    with TestClient(create_app(settings, backend), headers={"x-api-key": KEY}) as client:
        admin = {"x-api-key": "admin"}

        def load(**fields: Any) -> Any:
            return client.post("/admin/weights", json=body | fields, headers=admin)

        error_of(client.post("/admin/weights", json=body), 401)
        error_of(client.post("/v1/bon", json={}, headers=admin), 401)
        answer = bon(client)
        assert answer.json()["weights_digest"] == answer.headers["x-codepmp-weights"] == first
        for path in (
            "relative/new",
            str(tmp_path / ".." / "elsewhere"),
            f"{tmp_path}-beside",
            "builtin:smollm2-135m-instruct",
            "org/name-on-the-hub",
            "s3://bucket/rewards/../secret",
            "s3://bucket/rewards-beside/x",
            "s3://other/rewards/x",
        ):
            assert "weight_roots" in error_of(load(path=path), 422)["message"], path
        link = tmp_path / "link"
        link.symlink_to(tmp_path.parent)
        error_of(load(path=str(link)), 422)
        for digest in (None, "", second[:-1], second.upper()):
            assert error_of(load(weights_digest=digest), 422)["param"] == "weights_digest"
        assert "hidden_size" in error_of(load(path=str(tmp_path / "bad")), 422)["message"]
        assert bon(client).json()["weights_digest"] == first
        assert load().json()["weights_digest"] == second
        assert load(path="s3://bucket/rewards/step-7").status_code == 200
        answer = bon(client)
        assert answer.json()["weights_digest"] == answer.headers["x-codepmp-weights"] == second
        (card,) = client.get("/v1/models").json()["data"]
        assert card["weights_digest"] == second
    backend.digest = None


def test_openapi_describes_the_route_and_its_errors(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/bon"]["post"]
    assert {"200", "401", "413", "422", "429", "503"} <= set(operation["responses"])
    reference = operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/ErrorBody")
