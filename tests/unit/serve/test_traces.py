"""Spans reach a collector over HTTP; whatever it does, requests are answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.serve import app as serve_app
from codepmp_ray.serve import traces
from codepmp_ray.serve.application import build_application
from codepmp_ray.serve.traces import Traces
from tests.unit.serve.http_fakes import HEADERS, SETTINGS, FakeBackend, bon

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[Any]:
        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") is None and self.path == "/v1/traces":
            self.server.bodies.append(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client_of(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> tuple[TestClient, list[Traces]]:
    made: list[Traces] = []

    def make(place: str) -> Traces:
        made.append(Traces(place))
        return made[0]

    monkeypatch.setattr(serve_app, "Traces", make)
    settings = SETTINGS.model_copy(update={"otlp_traces_endpoint": endpoint})
    app = serve_app.create_app(settings, FakeBackend())
    return TestClient(app, raise_server_exceptions=False, headers=HEADERS), made


def test_each_request_is_a_span_below_its_caller_s(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    client, made = client_of(url, monkeypatch)
    client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    secret = "a text of the caller"
    for prompt in (secret, "away", "crash"):
        bon(client, prompt=prompt, candidates=[secret, "b"])
    client.get(f"/{secret}")
    made[0].flush()
    spans = {span.attributes and _shown(span)["http.response.status_code"]: span
             for span in collector.spans}  # fmt: skip
    assert sorted(spans) == [200, 404, 500, 503]
    for status, span in spans.items():
        assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == PARENT
        shown = _shown(span)
        assert span.name == ("GET other" if status == 404 else "POST /v1/bon")
        assert span.status.code == (2 if status >= 500 else 0)
        lasted_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert lasted_s == pytest.approx(shown["codepmp.total_s"], abs=1e-6)
    assert _shown(spans[200])["codepmp.num_candidates"] == 2
    assert all(secret.encode() not in body for body in collector.bodies)


def _shown(span: Any) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }


def test_a_collector_that_is_not_there_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = client_of("http://127.0.0.1:9/v1/traces", monkeypatch)
    assert bon(client).status_code == 200


def test_nothing_is_traced_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_app, "Traces", None)  # calling it would fail
    client = TestClient(serve_app.create_app(SETTINGS, FakeBackend()), headers=HEADERS)
    assert bon(client).status_code == 200


@pytest.mark.parametrize("package", traces._PACKAGES)
def test_a_missing_package_is_refused_by_its_name(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_PACKAGES", (package.replace("opentelemetry", "not_there"),))
    config = ServingConfig(otlp_traces_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(ConfigError, match=r"not_there.* is not installed") as caught:
        build_application(config, "/no/model", ["a" * 64])
    assert "codepmp-ray[traces]" in caught.value.remedy
    with pytest.raises(ValueError, match="otlp_traces_endpoint='collector:4318' must start"):
        ServingConfig(otlp_traces_endpoint="collector:4318")
