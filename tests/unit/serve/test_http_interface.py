"""The HTTP interface over a fake scorer: keys, limits, errors, and requests meant to break it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.scoring.best_of_n import BestOfN, best_of_n
from codepmp_ray.scoring.protocol import Scores
from serve.app import ServiceSettings, create_app
from serve.auth import digest_of
from serve.errors import ApiError, Unavailable
from serve.gate import Gate
from tests.tiny_models import tiny_tokenizer

KEY = "a-key-for-tests"
HEADERS = {"Authorization": f"Bearer {KEY}"}
MAX_BODY_BYTES = 100_000
SETTINGS = ServiceSettings(
    model_name="tiny",
    api_key_sha256=(digest_of("an older key"), digest_of(KEY)),
    max_candidates=200,
    max_body_bytes=MAX_BODY_BYTES,
    max_concurrent_requests=2,
)


class FakeScorer:
    """Rewards by length. Special prompts make it fail or wait."""

    max_model_len = 512

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.num_waiting = 0

    async def score_ids(self, prompt_ids: list[int], responses: list[list[int]]) -> Scores:
        return Scores([float(len(ids)) for ids in responses], num_cached_prompt_tokens=3)


class FakeBackend:
    """The real planning and ranking over the fake scorer."""

    def __init__(self) -> None:
        self.scorer = FakeScorer()
        tokenizer = tiny_tokenizer()
        template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
        self.encoder = Encoder(tokenizer, template)
        self.is_ready = True

    async def best_of_n(self, prompt: Any, candidates: list[str]) -> BestOfN:
        if prompt == "crash":
            raise RuntimeError("secret detail of the engine")
        if prompt == "away":
            raise Unavailable
        if prompt == "wait":
            self.scorer.num_waiting += 1
            while not self.scorer.gate.is_set():
                await asyncio.sleep(0.01)
        return await best_of_n(self.encoder, self.scorer, prompt, candidates)

    async def check_ready(self) -> None:
        if not self.is_ready:
            raise Unavailable


@pytest.fixture(scope="module")
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture(scope="module")
def client(backend: FakeBackend) -> Iterator[TestClient]:
    app = create_app(SETTINGS, backend)
    with TestClient(app, raise_server_exceptions=False, headers=HEADERS) as open_client:
        yield open_client


def bon(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/bon", json={"prompt": "p", "candidates": ["a"], **fields})


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error of a response that has the promised status and form."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def test_answer_has_the_documented_form(client: TestClient) -> None:
    answer = bon(client, model="tiny", candidates=["aa", "b", "aa", "cccc"]).json()
    assert answer.pop("id").startswith("bon-")
    usage = answer.pop("usage")
    assert usage == {"prompt_tokens": 20, "candidate_tokens": 3 + 2 + 5, "cached_prompt_tokens": 3}
    fields = ("index", "score", "rank", "num_tokens", "truncated", "duplicate_of")
    rows = [(0, 3.0, 2, 3, False, None), (1, 2.0, 4, 2, False, None)]
    rows += [(2, 3.0, 3, 3, False, 0), (3, 5.0, 1, 5, False, None)]
    data = [dict(zip(fields, row, strict=True)) for row in rows]
    assert answer == {"object": "best_of_n", "model": "tiny", "best_index": 3, "data": data}


def test_messages_and_prompt_give_the_same_score(client: TestClient) -> None:
    messages = [{"role": "user", "content": "p"}]
    by_messages = client.post("/v1/bon", json={"messages": messages, "candidates": ["a"]}).json()
    assert by_messages["usage"] == bon(client).json()["usage"]


def test_top_n_keeps_the_best_and_their_indices(client: TestClient) -> None:
    answer = bon(client, candidates=["a", "bbb", "cc", "dddd"], top_n=2).json()
    assert [(item["index"], item["rank"]) for item in answer["data"]] == [(1, 2), (3, 1)]
    assert answer["best_index"] == 3


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
        ("GET", "//health"),
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


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"candidates": []}, "candidates"),
    ({"candidates": ["a"] * 257}, "candidates"),
    ({"candidates": ["a"] * 201}, "candidates"),  # the limit of this service
    ({"candidates": "abc"}, "candidates"),
    ({"candidates": None}, "candidates"),
    ({"candidates": ["a", 1]}, "candidates.1"),
    ({"candidates": ["a", None]}, "candidates.1"),
    ({"candidates": [["a"]]}, "candidates.0"),
    ({"candidates": {"0": "a"}}, "candidates"),
    ({"candidates": [1] * 40_000}, "candidates"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["p"]}, "prompt"),
    ({"prompt": "p" * 600}, ""),  # does not fit the model
    ({"model": 7}, "model"),
    ({"top_n": 0}, "top_n"),
    ({"top_n": 257}, "top_n"),
    ({"top_n": "2"}, "top_n"),
    ({"top_n": True}, "top_n"),
    ({"top_n": 1.5}, "top_n"),
    ({"unknown": 1}, "unknown"),
    ({"messages": [{"role": "user", "content": "p"}]}, ""),  # and a prompt
    ({"prompt": None}, ""),
    ({"prompt": None, "messages": []}, "messages"),
    ({"prompt": None, "messages": [{"role": "root", "content": "p"}]}, "messages.0.role"),
    ({"prompt": None, "messages": [{"role": "user"}]}, "messages.0.content"),
    ({"prompt": None, "messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    ({"prompt": None, "messages": [{"role": "user", "content": "p", "x": 1}]}, "messages.0.x"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS)
def test_bad_values_are_422_and_named(
    client: TestClient, fields: dict[str, Any], param: str
) -> None:
    assert error_of(bon(client, **fields), 422)["param"] == (param or None)


NASTY_BODIES: list[bytes] = [
    b"",
    b"not json",
    b"[]",
    b"null",
    b'"text"',
    b"NaN",
    b'{"prompt": "p", "candidates": [NaN]}',
    b'{"prompt": NaN, "candidates": ["a"]}',
    b'{"prompt": "p", "candidates": ["a"], "top_n": NaN}',
    b'{"prompt": "p", "candidates": ["a"], "top_n": 1e999}',
    b'{"prompt": "p", "candidates": ["a"], "top_n": ' + b"9" * 5000 + b"}",
    b'{"prompt": "p", "candidates": ["\\ud800"]}',
    b'{"prompt": "\\udfff", "candidates": ["a"]}',
    b'{"prompt": "p", "candidates": ["a"], "model": "\\ud800"}',
    b'{"prompt": "p", "candidates": ["a"], "\\ud800": 1}',
    b'{"prompt": "p", "candidates": ["a"], "' + b"k" * 50_000 + b'": 1}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}], "candidates": ["a"]}',
    b'{"prompt": "p", "candidates": ["\xff\xfe"]}',
    b"[" * 90_000,
    b'{"a":' * 15_000,
    b'{"prompt": "p", "candidates": ["a"]',
]


@pytest.mark.parametrize("body", NASTY_BODIES, ids=range(len(NASTY_BODIES)))
def test_bodies_meant_to_break_it_are_422(client: TestClient, body: bytes) -> None:
    started_s = time.monotonic()
    error = error_of(
        client.post("/v1/bon", content=body, headers={"content-type": "application/json"}), 422
    )
    assert len(error["message"]) < 3000  # no echo of the body
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_under_another_content_type_is_422(client: TestClient, kind: str) -> None:
    body = b'{"prompt": "p", "candidates": ["a"]}'
    error_of(client.post("/v1/bon", content=body, headers={"content-type": kind}), 422)


@pytest.mark.parametrize("text", ["", "\x00", "\u202e", "😀" * 100, "<|im_end|>", "a" * 40_000])
def test_odd_texts_are_scored(client: TestClient, text: str) -> None:
    answer = bon(client, prompt="p", candidates=[text, "plain"])
    assert answer.status_code == 200
    assert answer.json()["data"][0]["truncated"] == (len(text) > 300)


def test_body_over_the_limit_is_413(client: TestClient) -> None:
    assert error_of(bon(client, candidates=["a" * MAX_BODY_BYTES]), 413)["code"] == "body_too_large"


def test_body_over_the_limit_is_refused_while_it_streams(backend: FakeBackend) -> None:
    """No length is announced, and the sender would never stop."""
    app = create_app(SETTINGS, backend)
    num_sent = 0
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal num_sent
        num_sent += 10_000
        assert num_sent < 3 * MAX_BODY_BYTES, "it reads on"
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(_scope(), receive, send))
    assert sent[0]["status"] == 413
    assert num_sent <= MAX_BODY_BYTES + 10_000


def test_announced_length_over_the_limit_is_refused_unread(backend: FakeBackend) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = _scope((b"content-length", b"9" * 30))
    asyncio.run(create_app(SETTINGS, backend)(scope, receive, send))
    assert sent[0]["status"] == 413


def test_body_without_a_key_is_not_read(backend: FakeBackend) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {**_scope(), "headers": []}
    asyncio.run(create_app(SETTINGS, backend)(scope, receive, send))
    assert sent[0]["status"] == 401


def test_body_that_comes_too_slowly_is_408() -> None:
    sent: list[dict[str, Any]] = []

    async def never_called(*_: Any) -> None:
        raise AssertionError("the application was reached")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    class OpenKeys:
        def accepts(self, headers: Any) -> bool:
            return True

    gate: Any = Gate
    middleware = gate(never_called, OpenKeys(), max_body_bytes=1000, body_timeout_s=0.1)
    asyncio.run(middleware(_scope(), receive, send))
    assert sent[0]["status"] == 408


def test_more_than_the_concurrent_limit_is_429_and_room_comes_back(
    client: TestClient, backend: FakeBackend
) -> None:
    backend.scorer.gate.clear()
    statuses: list[int] = []

    def call() -> None:
        statuses.append(bon(client, prompt="wait").status_code)

    threads = [threading.Thread(target=call) for _ in range(SETTINGS.max_concurrent_requests)]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + 10
    while backend.scorer.num_waiting < len(threads) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    refused = bon(client)
    assert error_of(refused, 429)["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) > 0
    assert client.get("/health").status_code == 200
    backend.scorer.gate.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * len(threads)
    assert bon(client).status_code == 200


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


def _scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/bon",
        "raw_path": b"/v1/bon",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"x-api-key", KEY.encode()),
            (b"content-type", b"application/json"),
            *headers,
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 9000),
    }
