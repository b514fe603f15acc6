"""The service on a real Ray Serve while things go wrong or change: callers that leave, processes
that are killed, a new model, a stop. Fake engines; everything else is real. Replicas that come
with the load and go take too long for a test: `benchmarks/serve_chaos` shows them.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from ray import serve
from starlette.responses import PlainTextResponse

from benchmarks._fake_replica import FakeReplica, fake_recipe, write_fake_model
from benchmarks._results import free_port
from benchmarks._serve_load import (
    INGRESS,
    PROXY,
    SCORER,
    as_the_fake_scores,
    kill_one,
    load,
    num_running,
)
from codepmp_ray.client import RewardClient
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError
from codepmp_ray.serve.application import build_application
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.launch import ServiceHandle, running_service
from codepmp_ray.serve.replicas import SCORER_NAME
from codepmp_ray.weights_digest import weights_digest
from tests.processes import PATIENCE_S, wait_until

DEADLINE_S = 30.0
SCRAPE = {"authorization": "Bearer scrape"}
# Slow enough that a request can be left: a candidate of 100 bytes takes 0.1 s.
SLOW = 1_000


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        name = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
        environment.setenv(name, "codepmp_ray.serve.front:middlewares")
        environment.setenv("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "1")
        yield


@pytest.fixture(scope="module")
def cluster(environment: None, own_ray: None) -> None:
    """Of this file alone, as docs/serving.md tells operators to start theirs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fake models")


@pytest.fixture(scope="module")
def service(cluster: None, folder: Path) -> Iterator[ServiceHandle]:
    """Two replicas of the first version of the model."""
    recipe = recipe_of(admin_key_sha256=[digest_of("admin")], weight_roots=[str(folder)])
    with running_service(recipe, model_of(folder, 0.0), replica_class=FakeReplica) as running:
        yield running


def recipe_of(**changes: Any) -> Recipe:
    fields = {"num_replicas": 2, "metrics_token_sha256": [digest_of("scrape")], **changes}
    return fake_recipe(max_tokens_in_flight=3_000, **fields)


def model_of(folder: Path, offset: float, tokens_per_s: float = SLOW) -> Path:
    return write_fake_model(folder / f"{offset}-{tokens_per_s}", tokens_per_s, offset)


def application() -> str:
    (name,) = serve.status().applications
    return name


def counts() -> dict[str, int]:
    """Of all replicas together."""
    handle = serve.get_deployment_handle(SCORER_NAME, application())
    total: dict[str, int] = {}
    for found in handle.broadcast("counts").results(timeout_s=PATIENCE_S):
        for name, number in found.items():
            total[name] = total.get(name, 0) + number
    return total


def figure(service: ServiceHandle, name: str) -> float:
    text = httpx.get(f"{service.url}/metrics", headers=SCRAPE).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def leave(service: ServiceHandle, num_candidates: int, seconds: float) -> None:
    """Ask, wait for so long, and close the connection without an answer."""
    body = {"prompt": "p", "candidates": [f"{i:0100}" for i in range(num_candidates)]}
    headers = {"x-api-key": service.api_key}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.url}/v1/bon", json=body, headers=headers, timeout=seconds)


@contextmanager
def asking(service: ServiceHandle, num_candidates: int) -> Iterator[None]:
    """For the time of the block a call is under way; then its connection is closed."""
    url = httpx.URL(service.url)
    connection = http.client.HTTPConnection(url.host, url.port)
    body = {"prompt": "p", "candidates": [f"{i:0100}" for i in range(num_candidates)]}
    headers = {"x-api-key": service.api_key, "content-type": "application/json"}
    connection.request("POST", "/v1/bon", json.dumps(body), headers)
    try:
        yield
    finally:
        connection.close()


@contextmanager
def behind_serves_proxy(folder: Path) -> Iterator[str]:
    """Two models and an application of somebody else, as `serve deploy` has them; the address."""
    key = [digest_of("sk-two")]
    other = serve.deployment(ray_actor_options={"num_cpus": 0})(Other)
    targets = [serve.RunTarget(other.bind(), "other", route_prefix="/other")]
    for name, offset in (("a", 0.0), ("b", 7.0)):
        model = model_of(folder, offset, 1e6)
        config = recipe_of(num_replicas=1, served_model_name=name).serving
        app = build_application(config, model, key, FakeReplica)
        targets.append(serve.RunTarget(app, name, route_prefix=f"/{name}"))
    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run_many(targets)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


# These two come first: Serve has one address at a time, and `service` has none.
@pytest.mark.rehearsal
def test_two_models_under_two_prefixes_of_one_serve_beside_anothers_application(
    cluster: None, folder: Path
) -> None:
    with behind_serves_proxy(folder) as url, httpx.Client(base_url=url, timeout=60) as client:
        for name, offset in (("a", 0.0), ("b", 7.0)):
            prefix, headers = f"/{name}", {"x-api-key": "sk-two"}
            for path in ("/health", "/ready", "/"):
                assert client.get(prefix + path).status_code == 200
            assert client.get(f"{prefix}/metrics", headers=headers).status_code == 401
            assert client.get(f"{prefix}/metrics", headers=SCRAPE).status_code == 200
            body = {"model": name, "prompt": "p", "candidates": ["a", "b"]}
            assert client.post(f"{prefix}/v1/bon", json=body).status_code == 401
            found = client.post(f"{prefix}/v1/bon", json=body, headers=headers).json()["data"]
            assert as_the_fake_scores(offset)(["a", "b"], [row["score"] for row in found])
            reward = RewardClient(f"{url}/{name}", "sk-two")
            assert as_the_fake_scores(offset)(["a"], reward.choose("p", ["a"]).rewards)
        answer = client.get("/other/x", headers={"x-session-id": "s"})
        assert (answer.status_code, answer.text) == (404, "theirs: s")
        assert client.get("/nowhere").status_code == 404
        require_that_header_junk_is_harmless(f"{url}/a", "sk-two")


@pytest.mark.rehearsal
def test_a_new_model_version_and_a_killed_proxy_fail_no_call(cluster: None, folder: Path) -> None:
    """Deployed over the running one under load, as `serve deploy` does with a changed config."""
    seen: list[float] = []

    def check(texts: list[str], rewards: list[float]) -> bool:
        """An answer is of one version throughout."""
        for offset in (0.0, 10.0):
            if as_the_fake_scores(offset)(texts, rewards):
                seen.append(offset)
                return True
        return False

    changed = recipe_of(num_replicas=1, max_candidates=100).serving
    with (
        behind_serves_proxy(folder) as url,
        load(f"{url}/a", "sk-two", 4, DEADLINE_S, check) as calls,
    ):
        wait_until(lambda: calls.num > 20)
        key = [digest_of("sk-two")]
        new = build_application(changed, model_of(folder, 10.0, 1e6), key, FakeReplica)
        serve.run(new, name="a", route_prefix="/a")
        for _ in range(2):
            num_before = calls.num
            wait_until(lambda num_before=num_before: calls.num > num_before + 20)
            wait_until(lambda: kill_one(PROXY, random.Random(0)))
        num_before = calls.num
        wait_until(lambda: calls.num > num_before + 20)
    assert calls.failures == []
    assert seen[0] < 10.0 and seen[-10:] == [10.0] * 10


def test_who_leaves_is_not_scored_any_longer(service: ServiceHandle) -> None:
    """While being scored, and while waiting for a turn; nothing stays behind."""
    before = counts()
    with asking(service, 200):  # 20 s of work
        wait_until(lambda: counts()["started"] == before["started"] + 1)
        assert figure(service, "codepmp_tokens_in_flight") > 5_000
        # It does not fit beside the first one, so it waits, and leaves while it does.
        leave(service, 200, 0.5)
    wait_until(lambda: counts()["cancelled"] == before["cancelled"] + 1)
    wait_until(lambda: figure(service, "codepmp_tokens_in_flight") == 0)
    assert figure(service, "codepmp_tokens_waiting") == 0
    after = counts()
    assert after["started"] == before["started"] + 1  # the second one never reached a replica
    assert after["finished"] == before["finished"] and after["tokens_in_flight"] == 0


def test_it_is_ready_while_it_is_busy(service: ServiceHandle) -> None:
    """Calls that fill every slot, and many more that wait, among them one over all limits."""
    busy = [threading.Thread(target=leave, args=[service, 60, 4.0]) for _ in range(100)]
    busy.append(threading.Thread(target=leave, args=[service, 256, 4.0]))
    for thread in busy:
        thread.start()
    wait_until(lambda: figure(service, "codepmp_tokens_waiting") > 50_000)
    for _ in range(3):
        started_s = time.monotonic()
        assert httpx.get(f"{service.url}/ready", timeout=PATIENCE_S).status_code == 200
        assert time.monotonic() - started_s < 3.0
        time.sleep(1.0)
    for thread in busy:
        thread.join()
    wait_until(lambda: figure(service, "codepmp_tokens_in_flight") == 0)


@pytest.mark.rehearsal
def test_weights_are_changed_under_load_and_outlive_whoever_holds_them(
    service: ServiceHandle, folder: Path
) -> None:
    """No call fails, and an answer says whose it is; a killed replica and ingress know them too."""
    new = model_of(folder, 5.0)
    digest = weights_digest(str(new))

    def load_new() -> httpx.Response:
        body = {"path": str(new), "weights_digest": digest}
        headers = {"x-api-key": "admin"}
        return httpx.post(f"{service.url}/admin/weights", json=body, headers=headers, timeout=60)

    check, choice = as_the_fake_scores(0.0, 5.0), random.Random(0)
    with load(service.url, service.api_key, 4, DEADLINE_S, check) as calls:
        wait_until(lambda: calls.num > 10)
        changed = load_new()
        assert changed.status_code == 200, changed.text
        assert changed.json()["weights_digest"] == digest
        wait_until(lambda: calls.num > 30)
        for title in (SCORER, INGRESS, SCORER):
            num_before = calls.num
            wait_until(lambda title=title: kill_one(title, choice))
            wait_until(lambda num_before=num_before: calls.num > num_before + 20)
    assert calls.failures == []
    body, headers = {"prompt": "p", "candidates": ["a", "b"]}, {"x-api-key": service.api_key}
    wait_until(lambda: num_running() == 2)
    for _ in range(20):
        answer = httpx.post(f"{service.url}/v1/bon", json=body, headers=headers, timeout=60)
        assert answer.headers["x-codepmp-weights"] == digest
        assert as_the_fake_scores(5.0)(["a", "b"], [row["score"] for row in answer.json()["data"]])


def require_that_header_junk_is_harmless(url: str, key: str) -> None:
    junk = [
        {b"x-request-id": b"\xff"},
        {b"x-request-timeout-seconds": b"\xff"},
        {b"serve_multiplexed_model_id": b"\xff"},
        {b"x-session-id": b"\xff"},
    ]
    for line in junk:
        answer = httpx.get(
            f"{url}/v1/models", headers=[(b"x-api-key", key.encode()), *line.items()]
        )
        assert answer.status_code == 200, line
    port = int(httpx.URL(url).port or 0)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        try:
            for _ in range(100):
                connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000)
            assert connection.recv(100) == b""
        except OSError:
            pass  # cut, as it should


def test_header_junk_is_harmless(service: ServiceHandle) -> None:
    require_that_header_junk_is_harmless(service.url, service.api_key)


@pytest.mark.rehearsal
def test_killed_processes_fail_no_call(service: ServiceHandle) -> None:
    """SIGKILL of scorers and of the only ingress, under load."""
    choice = random.Random(0)
    check = as_the_fake_scores(0.0, 5.0)
    with load(service.url, service.api_key, 4, DEADLINE_S, check) as calls:
        for title in (SCORER, SCORER, INGRESS):
            time.sleep(1.0)
            wait_until(lambda title=title: kill_one(title, choice))
            time.sleep(2.0)
        num_before = calls.num
        wait_until(lambda: calls.num > num_before + 20)
    assert calls.failures == []
    wait_until(lambda: num_running() == 2)


def test_a_stop_answers_who_is_inside(service: ServiceHandle, folder: Path) -> None:
    """The last test of `service`: its doors close, and stay closed."""
    from codepmp_ray.serve.launch import _drain

    wait_until(lambda: num_running() >= 1)
    answers: list[httpx.Response] = []
    body = {"prompt": "p", "candidates": [f"{i:0100}" for i in range(20)]}  # 2 s
    headers = {"x-api-key": service.api_key}

    def ask() -> None:
        answers.append(
            httpx.post(f"{service.url}/v1/bon", json=body, headers=headers, timeout=PATIENCE_S)
        )

    inside = threading.Thread(target=ask)
    inside.start()
    wait_until(lambda: figure(service, "codepmp_tokens_in_flight") > 0)
    stop = threading.Thread(target=_drain, args=[application(), 60.0])
    stop.start()
    wait_until(lambda: httpx.get(f"{service.url}/ready").status_code == 503)
    assert inside.is_alive()
    late = httpx.post(f"{service.url}/v1/bon", json=body, headers=headers)
    assert late.status_code == 503 and late.headers["retry-after"]
    assert httpx.get(f"{service.url}/health").status_code == 200
    inside.join()
    stop.join(PATIENCE_S)
    assert not stop.is_alive()
    assert [answer.status_code for answer in answers] == [200]
    serve.shutdown()


class Other:
    """An application that is not ours."""

    async def __call__(self, request: Any) -> Any:
        return PlainTextResponse(f"theirs: {request.headers.get('x-session-id')}", 404)


def test_tls_with_a_certificate_of_our_own(
    cluster: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the service of the other tests, as Serve has one address a cluster."""
    monkeypatch.chdir(folder)
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path("ca.pem")
    made.private_key_pem.write_to_path("key.pem")
    chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
    Path("cert.pem").write_bytes(chain)
    # Names as they are given: relative to the job's folder, not to the proxy's.
    recipe = fake_recipe(tls_cert_file="cert.pem", tls_key_file="key.pem", num_replicas=1)
    with running_service(recipe, model_of(folder, 0.0), replica_class=FakeReplica) as service:
        assert service.url.startswith("https://")
        with RewardClient(service.url, service.api_key, ca_file="ca.pem") as client:
            assert as_the_fake_scores(0.0)(["a", "b"], client.choose("p", ["a", "b"]).rewards)
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{service.url}/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(service.url.replace("https", "http") + "/health")
    assert not serve.status().applications


def test_tls_files_that_cannot_be_used_are_refused_before_the_start(tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("127.0.0.1")
    cert, key, other = (tmp_path / name for name in ("cert.pem", "key.pem", "other.pem"))
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(str(other))
    for tls, words in (
        ({"tls_cert_file": str(cert)}, "tls_key_file=None: one is missing"),
        ({"tls_key_file": str(key)}, "tls_cert_file=None and .*one is missing"),
        ({"tls_cert_file": str(cert), "tls_key_file": "gone.pem"}, "gone.pem.*No such file"),
        ({"tls_cert_file": str(tmp_path), "tls_key_file": str(key)}, "cannot be used"),
        ({"tls_cert_file": str(key), "tls_key_file": str(key)}, "cannot be used"),
        ({"tls_cert_file": str(cert), "tls_key_file": str(other)}, "cannot be used.*(?i:mismatch)"),
    ):
        with (
            pytest.raises(ConfigError, match=words),
            running_service(fake_recipe(**tls), tmp_path),
        ):
            pass
