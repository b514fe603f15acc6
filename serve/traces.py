"""Traces of requests for OpenTelemetry: a span each, with what the log line says and no text."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from codepmp_ray.errors import ConfigError

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def require_packages() -> None:
    """Raises ConfigError naming what is not installed."""
    for package in _PACKAGES:
        try:
            is_there = find_spec(package) is not None
        except ModuleNotFoundError:  # of a package above it
            is_there = False
        if not is_there:
            raise ConfigError(
                f"serving.otlp_traces_endpoint is set and {package} is not installed.",
                "pip install 'codepmp-ray[traces]', or leave it out.",
            )


class Traces:
    """Sends spans to a collector, in the background. One that does not answer costs no request.

    Args:
        endpoint: the whole address for OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
    """

    def __init__(self, endpoint: str) -> None:
        require_packages()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=Resource.create({"service.name": "codepmp"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("codepmp_ray.serve")
        self._context_of = TraceContextTextMapPropagator().extract
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR

    def record(self, scope: Scope, line: dict[str, Any]) -> None:
        """The request that ends now and took `total_s`; below the caller's own span, where its
        `traceparent` says one.
        """
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            f"{scope['method']} {line['route']}",
            context=self._context_of(dict(Headers(scope=scope))),
            kind=self._server,
            start_time=end_ns - round(line["total_s"] * 1e9),
            attributes={
                "http.request.method": scope["method"],
                "http.route": line["route"],
                "http.response.status_code": line["status"],
                **{f"codepmp.{k}": v for k, v in line.items() if k not in ("route", "status")},
            },
        )
        if line["status"] >= 500:
            span.set_status(self._error)
        span.end(end_ns)

    def flush(self) -> None:
        """Send what waits, and wait for it."""
        self._provider.force_flush()
