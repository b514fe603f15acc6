"""The HTTP application: routes over a Backend. It knows neither ray nor a model.

`create_app` is used by the Ray Serve ingress (serve/deployments.py) and, with a fake backend, by
the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.routing import Route

from codepmp_ray.config.base import Section
from codepmp_ray.scoring.best_of_n import ScoringRequest

from .admission import Admission
from .auth import KeyRing
from .dialects import add_dialects
from .draining import Doors
from .errors import ApiError, Unavailable, install_handlers
from .gate import Gate, caller_of
from .observation import Metrics, Observer
from .page import playground
from .schemas import (
    MAX_CANDIDATES,
    BonRequest,
    BonResponse,
    Calibration,
    ErrorBody,
    ModelCard,
    ModelList,
    Status,
)
from .scoring import Backend, ScoringPath


class ServiceSettings(Section):
    """Limits and keys of one service. Keys are sha256 digests.

    Requests at once and tokens, in flight and waiting, are of each replica. `weights_digest`,
    `max_model_len` and `dtype` are what /v1/models tells of the model.
    """

    model_name: str
    weights_digest: str | None = None
    max_model_len: int | None = None
    dtype: str | None = None
    api_key_sha256: tuple[str, ...]
    api_keys_file: str | None = None
    metrics_token_sha256: tuple[str, ...] = ()
    max_candidates: int = MAX_CANDIDATES
    max_body_bytes: int = 8_000_000
    body_timeout_s: float = 60.0
    max_concurrent_requests: int = 64
    max_tokens_in_flight: int = 262_144
    max_waiting_tokens: int = 1_048_576
    calibration: Calibration | None = None


def create_app(
    settings: ServiceSettings,
    backend: Backend,
    doors: Doors | None = None,
    num_replicas: Callable[[], int] = lambda: 1,
) -> FastAPI:
    """The application. Raises ConfigError when `settings` holds no key.

    Without a scrape token `/metrics` answers to nobody. Once `doors` close, nothing new is scored.
    `num_replicas` says how many share the work now.
    """
    doors = doors or Doors()
    keys = KeyRing(settings.api_key_sha256, settings.api_keys_file)
    scrapers = (
        KeyRing(settings.metrics_token_sha256, None) if settings.metrics_token_sha256 else None
    )
    metrics = Metrics()
    scoring = ScoringPath(
        settings.model_name,
        settings.max_candidates,
        Admission(
            settings.max_concurrent_requests,
            settings.max_tokens_in_flight,
            settings.max_waiting_tokens,
            num_replicas=num_replicas,
        ),
        backend,
        metrics,
    )
    # FastAPI's documentation pages load scripts from elsewhere; /openapi.json has the content.
    app = FastAPI(
        title="CodePMP best-of-N scoring", docs_url=None, redoc_url=None, redirect_slashes=False
    )
    install_handlers(app)
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody} for status in (401, 404, 408, 413, 422, 429, 500, 503, 504)
    }

    @app.post("/v1/bon", response_model=BonResponse, responses=failures)
    async def bon(request: BonRequest, http: Request) -> BonResponse:
        """Score the candidates as answers to the prompt and name the best one."""
        scoring.require_model(request.model)
        if request.normalize and settings.calibration is None:
            raise ApiError(
                422,
                "normalize: this service has no calibration (serving.score_mean and score_std)",
                param="normalize",
            )
        timeout_s = None if request.deadline_ms is None else request.deadline_ms / 1000
        asked = ScoringRequest(
            request.prompt_or_messages(), request.candidates, timeout_s=timeout_s
        )
        result = await scoring.score(caller_of(http.scope), asked)
        calibration = settings.calibration if request.normalize else None
        return BonResponse.of(result, settings.model_name, request, calibration)

    add_dialects(app, scoring, failures)

    card = ModelCard(
        id=settings.model_name,
        weights_digest=settings.weights_digest,
        max_model_len=settings.max_model_len,
        dtype=settings.dtype,
    )

    @app.get("/v1/models", response_model=ModelList, responses={401: failures[401]})
    async def models() -> ModelList:
        """The served model, and which weights it has."""
        return ModelList(data=[card])

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """A playground. Needs no key; its calls do."""
        return playground()

    @app.get("/health", response_model=Status)
    async def health() -> Status:
        """The process answers. Needs no key."""
        return Status(status="ok")

    @app.get("/ready", response_model=Status, responses={503: {"model": ErrorBody}})
    async def ready() -> Status:
        """A request would be scored now. Needs no key."""
        if doors.are_closing:
            raise Unavailable
        await backend.check_ready()
        return Status(status="ready")

    @app.get("/metrics", include_in_schema=False)
    async def figures() -> Response:
        """Prometheus figures. Needs the scrape token, not an API key."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    app.add_middleware(
        Gate,
        keys=keys,
        scrapers=scrapers,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        doors=doors,
    )
    # The last one added is the outermost.
    routes = frozenset(route.path for route in app.routes if isinstance(route, Route))
    app.add_middleware(Observer, metrics=metrics, routes=routes)
    return app


__all__ = ["Backend", "ServiceSettings", "Unavailable", "create_app"]
