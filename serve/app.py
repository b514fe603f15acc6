"""The HTTP application: routes over a Backend. It knows neither ray nor a model.

`create_app` is used by the Ray Serve ingress (serve/deployments.py) and, with a fake backend, by
the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from fastapi import FastAPI

from codepmp_ray.config.base import Section
from codepmp_ray.scoring.best_of_n import BestOfN
from serve.auth import KeyRing
from serve.errors import ApiError, Unavailable, install_handlers
from serve.gate import Gate
from serve.schemas import (
    MAX_CANDIDATES,
    BonRequest,
    BonResponse,
    ErrorBody,
    ModelCard,
    ModelList,
    Status,
)


class ServiceSettings(Section):
    """Limits and keys of one service. Keys are sha256 digests."""

    model_name: str
    api_key_sha256: tuple[str, ...]
    max_candidates: int = MAX_CANDIDATES
    max_body_bytes: int = 8_000_000
    max_concurrent_requests: int = 64


class Backend(Protocol):
    """What scores."""

    async def best_of_n(self, prompt: str | list[dict[str, str]], candidates: list[str]) -> BestOfN:
        """Raises InputError for a request that cannot be scored, Unavailable if it may be soon."""
        ...

    async def check_ready(self) -> None:
        """Raises Unavailable unless a request would be scored now."""
        ...


class Admission:
    """At most `limit` requests at once; the next one is refused, not queued."""

    def __init__(self, limit: int) -> None:
        self._limit, self._num_admitted = limit, 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        if self._num_admitted >= self._limit:
            raise ApiError(
                429,
                f"{self._limit} requests are being scored, which is max_concurrent_requests.",
                retry_after_s=1,
            )
        self._num_admitted += 1
        try:
            yield
        finally:
            self._num_admitted -= 1


def create_app(settings: ServiceSettings, backend: Backend) -> FastAPI:
    """The application. Raises ConfigError when `settings` holds no key."""
    keys = KeyRing(settings.api_key_sha256)
    admission = Admission(settings.max_concurrent_requests)
    # FastAPI's documentation pages load scripts from elsewhere; /openapi.json has the content.
    app = FastAPI(
        title="CodePMP best-of-N scoring", docs_url=None, redoc_url=None, redirect_slashes=False
    )
    install_handlers(app)
    app.add_middleware(Gate, keys=keys, max_body_bytes=settings.max_body_bytes)
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody} for status in (401, 404, 408, 413, 422, 429, 500, 503)
    }

    @app.post("/v1/bon", response_model=BonResponse, responses=failures)
    async def bon(request: BonRequest) -> BonResponse:
        """Score the candidates as answers to the prompt and name the best one."""
        if request.model is not None and request.model != settings.model_name:
            raise ApiError(
                404,
                f"The model {request.model!r} is not served here; {settings.model_name!r} is.",
                param="model",
                code="model_not_found",
            )
        if len(request.candidates) > settings.max_candidates:
            raise ApiError(
                422,
                f"candidates: {len(request.candidates)} exceed "
                f"max_candidates={settings.max_candidates}",
                param="candidates",
            )
        with admission.admit():
            result = await backend.best_of_n(request.prompt_or_messages(), request.candidates)
        return BonResponse.of(result, settings.model_name, request.top_n)

    card = ModelCard(id=settings.model_name)

    @app.get("/v1/models", response_model=ModelList)
    async def models() -> ModelList:
        """The served model."""
        return ModelList(data=[card])

    @app.get("/health", response_model=Status)
    async def health() -> Status:
        """The process answers. Needs no key."""
        return Status(status="ok")

    @app.get("/ready", response_model=Status, responses={503: {"model": ErrorBody}})
    async def ready() -> Status:
        """A request would be scored now. Needs no key."""
        await backend.check_ready()
        return Status(status="ready")

    return app


__all__ = ["Backend", "ServiceSettings", "Unavailable", "create_app"]
