"""The page, the figures, the log line and the keys that change while the service runs."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from codepmp_ray.errors import ConfigError
from codepmp_ray.serve import auth
from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.auth import KeyRing, digest_of
from tests.processes import PATIENCE_S
from tests.unit.serve.http_fakes import HEADERS, KEY, SETTINGS, FakeBackend, error_of

SCRAPE = {"Authorization": "Bearer a-scrape-token"}


@pytest.fixture
def open_client(backend: FakeBackend) -> TestClient:
    """No key of its own; an app of its own, whose figures begin at zero."""
    settings = SETTINGS.model_copy(update={"metrics_token_sha256": (digest_of("a-scrape-token"),)})
    return TestClient(create_app(settings, backend), raise_server_exceptions=False)


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    response = client.get("/metrics", headers=SCRAPE)
    assert response.status_code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_the_page_needs_no_key_and_loads_nothing_else(open_client: TestClient) -> None:
    response = open_client.get("/")
    assert response.status_code == 200 and "<title>Best of N</title>" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "'unsafe-inline'" not in policy
    for mark in ("http://", "https://", "src=", "href=", "@import", "url("):
        assert mark not in response.text
    error_of(open_client.post("/", json={}), 401)


def test_a_failure_that_nobody_expected_is_an_answer_like_others(
    backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """In the figures, with an id and for web pages to read; it goes no further, where a server
    would log its message, which may quote the prompt.
    """
    settings = SETTINGS.model_copy(
        update={
            "metrics_token_sha256": (digest_of("a-scrape-token"),),
            "cors_origins": ("https://page",),
        }
    )
    client = TestClient(create_app(settings, backend), headers=HEADERS)  # it raises what is raised
    answer = client.post(
        "/v1/bon",
        json={"prompt": "crash", "candidates": ["a"]},
        headers={"origin": "https://page", "x-request-id": "mine"},
    )
    error_of(answer, 500)
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["access-control-allow-origin"] == "https://page"
    assert figures(client)["codepmp_requests_total", "/v1/bon", "500"] == 1
    assert "RuntimeError" in caplog.text and "secret" not in caplog.text


def test_usage_is_counted_by_the_name_of_the_key(backend: FakeBackend, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    lines = [f"{digest_of('a')}  # alice", f"{digest_of('b')} bob jr.", f"{digest_of('c')}#carol"]
    file.write_text("\n".join([*lines, digest_of("a2") + " # alice", digest_of("d"), "# nobody"]))
    scrapers = (digest_of("a-scrape-token"),)
    changed = {"api_keys_file": str(file), "metrics_token_sha256": scrapers}
    app = create_app(SETTINGS.model_copy(update=changed), backend)
    client = TestClient(app, raise_server_exceptions=False)
    body = {"prompt": "p", "candidates": ["aa", "b"]}
    usage = {}
    for key in ("a", "a", "a2", "b", "c", "d"):
        usage = client.post("/v1/bon", json=body, headers={"x-api-key": key}).json()["usage"]
    many = {"requests": [body] * 3}
    assert client.post("/v1/bon", json=many, headers={"x-api-key": "b"}).status_code == 200
    client.post("/v1/bon", json={**body, "candidates": []}, headers={"x-api-key": "c"})
    found = figures(client)
    unnamed = digest_of("d")[:8]
    for name, num_calls, num_prompts in (
        ("alice", 3, 3),
        ("bob jr.", 2, 4),
        ("carol", 1, 1),
        (unnamed, 1, 1),
    ):
        assert found["codepmp_key_requests_total", name] == num_calls
        for kind in ("prompt", "candidate"):
            num = num_prompts * usage[f"{kind}_tokens"]
            assert found["codepmp_key_tokens_total", name, kind] == num


def test_figures_count_requests_tokens_and_time(open_client: TestClient) -> None:
    key = {"x-api-key": KEY}
    body = {"prompt": "p", "candidates": ["aa", "b", "aa"]}
    usage = open_client.post("/v1/bon", json=body, headers=key).json()["usage"]
    open_client.post("/v1/bon", json={**body, "candidates": []}, headers=key)
    open_client.post("/v1/bon", json=body)
    open_client.get("/secret/path", headers=key)
    open_client.get("/health")
    found = figures(open_client)
    assert found["codepmp_requests_total", "/v1/bon", "200"] == 1
    assert found["codepmp_requests_total", "/v1/bon", "422"] == 1
    assert found["codepmp_requests_total", "/v1/bon", "401"] == 1
    assert found["codepmp_requests_total", "other", "404"] == 1
    assert found["codepmp_requests_total", "/health", "200"] == 1
    assert found["codepmp_candidates_total",] == 3
    assert found["codepmp_tokens_total", "prompt"] == usage["prompt_tokens"]
    assert found["codepmp_tokens_total", "candidate"] == usage["candidate_tokens"] == 5
    assert found["codepmp_tokens_total", "cached_prompt"] == 3
    assert found["codepmp_tokens_in_flight",] == found["codepmp_tokens_waiting",] == 0
    for phase, count in (("waiting", 1), ("scoring", 1), ("total", 5)):
        assert found["codepmp_request_seconds_count", phase] == count


def test_figures_open_to_their_token_only(open_client: TestClient, client: TestClient) -> None:
    error_of(open_client.get("/metrics"), 401)
    error_of(open_client.get("/metrics", headers={"x-api-key": KEY}), 401)
    error_of(open_client.get("/v1/models", headers=SCRAPE), 401)
    error_of(client.get("/metrics"), 401)  # no token is set there


def test_every_request_has_an_id_and_one_line_without_texts(
    open_client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"prompt": "my secret prompt", "candidates": ["my secret answer"]}
    headers = {"x-api-key": KEY, "x-request-id": "job-7.a"}
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        response = open_client.post("/v1/bon", json=body, headers=headers)
    assert response.headers["x-request-id"] == "job-7.a"
    (line,) = [json.loads(record.getMessage()) for record in caplog.records]
    assert "secret" not in json.dumps(line)
    assert {"request_id", "route", "status", "caller", "num_candidates", "scoring_s"} <= set(line)
    assert line["caller"] == digest_of(KEY)[:8] and line["status"] == 200
    for odd in ("x" * 65, 'a"b', "a b", ""):
        made = open_client.get("/health", headers={"x-request-id": odd}).headers["x-request-id"]
        assert made != odd and len(made) == 32


def test_keys_come_and_go_with_their_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(auth, "_LOOK_EVERY_S", 0.0)
    file = tmp_path / "keys"
    times = iter(range(1, 100))

    def write(text: str) -> None:
        file.write_text(text)
        os.utime(file, ns=(0, next(times)))

    def knows(ring: KeyRing, key: str) -> bool:
        headers = [(b"x-api-key", key.encode())]
        for _ in range(2):  # the first time it sees that the file changed
            found = ring.caller(headers) is not None
            if ring._looking is not None:
                ring._looking.join()  # before the file is written again
        return found

    write(f"# ours\n{digest_of('one')}  # of the one\n\n{digest_of('two').upper()} two\n")
    ring = KeyRing([digest_of("given")], file)
    assert all(knows(ring, key) for key in ("given", "one", "two")) and not knows(ring, "three")
    write(digest_of("three"))
    assert knows(ring, "three") and knows(ring, "given") and not knows(ring, "one")
    for damage in ("no digest", "\udce9".encode("utf-8", "surrogateescape").decode("latin-1")):
        write(damage)
        assert knows(ring, "three")
    file.unlink()
    assert knows(ring, "three")
    write(digest_of("four"))
    assert knows(ring, "four") and not knows(ring, "three")


def test_a_key_file_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch) -> None:
    """A file on a share that is gone: its stat does not come back."""
    monkeypatch.setattr(auth, "_LOOK_EVERY_S", 0.0)
    file = tmp_path / "keys"
    file.write_text(digest_of("one"))
    ring = KeyRing([], file)
    back = threading.Event()
    looks: list[Path] = []

    def hang(path: Path) -> None:
        looks.append(path)
        assert back.wait(PATIENCE_S)

    monkeypatch.setattr(ring, "_read", hang)
    started_s = time.monotonic()
    for _ in range(100):
        assert ring.caller([(b"x-api-key", b"one")])
    assert time.monotonic() - started_s < PATIENCE_S / 2
    assert looks == [file]  # and one thread waits for it, not a hundred
    back.set()


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read"), ("a key", "not a sha256")])
def test_a_key_file_that_is_no_use_is_refused_at_the_start(
    tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        KeyRing([digest_of("given")], file)


@pytest.mark.parametrize(
    ("value", "status"),
    [(f"any:{KEY}", 200), (f":{KEY}", 200), (KEY, 401), ("any:wrong", 401)],
)
def test_a_key_in_the_address_is_a_key(open_client: TestClient, value: str, status: int) -> None:
    """What `http://any:KEY@host` makes of it."""
    headers: dict[str, Any] = {
        "Authorization": "Basic " + base64.b64encode(value.encode()).decode()
    }
    assert open_client.get("/v1/models", headers=headers).status_code == status
