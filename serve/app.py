"""The HTTP application: routes over a Backend. It knows neither ray nor a model.

`create_app` is used by the Ray Serve ingress (serve/deployments.py) and, with a fake backend, by
the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from codepmp_ray import __version__
from codepmp_ray.errors import InputError
from codepmp_ray.scoring.best_of_n import Cut, ScoringRequest

from .admission import Admission
from .answer_schemas import (
    BonItemResult,
    BonManyResponse,
    BonResponse,
    ErrorBody,
    ModelCard,
    ModelList,
    Status,
    fields_of,
)
from .auth import KeyRing
from .bodies import StrictRoute
from .dialect_schemas import MAX_TEXTS
from .dialects import add_dialects
from .draining import Doors
from .errors import ApiError, Unavailable, install_handlers, not_executed
from .gate import WEIGHTS_PATH, Gate, caller_of
from .models import Ensemble, Models
from .observation import Metrics, Observer
from .openapi import describe_keys
from .page import playground
from .quotas import Quotas
from .schemas import BonBody, BonItem, BonRequest
from .scoring import (
    ANSWER_HEADERS,
    Backend,
    ModelPath,
    ScoringPath,
    all_of,
)
from .settings import ServiceSettings
from .traces import Traces
from .weights import WeightsAnswer, WeightsRequest, allowed_place


def create_app(
    settings: ServiceSettings,
    backend: Backend | Mapping[str, Backend],
    doors: Doors | None = None,
    num_replicas: Callable[[str], int] = lambda model: 1,
) -> FastAPI:
    """The application. Raises ConfigError when `settings` holds no key.

    Without a scrape token `/metrics` answers to nobody. Once `doors` close, nothing new is scored.
    `backend` is that of each model where there are several. `num_replicas` says how many share the
    work of a model now.
    """
    doors = doors or Doors()
    keys = KeyRing(settings.api_key_sha256, settings.api_keys_file)
    scrapers, admins = (
        KeyRing(digests, None) if digests else None
        for digests in (settings.metrics_token_sha256, settings.admin_key_sha256)
    )
    metrics = Metrics()
    quotas = Quotas(
        {"requests": settings.requests_per_minute, "tokens": settings.tokens_per_minute}
    )
    all_facts = [settings, *settings.other_models]
    backends = backend if isinstance(backend, Mapping) else {settings.model_name: backend}
    served = Models(
        [
            ModelPath(
                facts,
                Admission(
                    settings.max_concurrent_requests,
                    settings.max_tokens_in_flight,
                    settings.max_waiting_bytes // len(all_facts),
                    num_replicas=partial(num_replicas, facts.model_name),
                ),
                backends[facts.model_name],
                metrics,
                Cut(settings.truncate),
                keys.name_of,
                quotas,
            )
            for facts in all_facts
        ],
        metrics,
        settings.lower_bound_stds,
    )
    # FastAPI's documentation pages load scripts from elsewhere; /openapi.json has the content.
    app = FastAPI(
        title="CodePMP best-of-N scoring",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.router.route_class = StrictRoute
    install_handlers(app)
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody}
        for status in (401, 404, 408, 413, 415, 422, 429, 500, 503, 504)
    }

    may_execute = failures | {501: {"model": ErrorBody}}

    @app.post("/v1/bon", response_model=BonResponse | BonManyResponse, responses=may_execute)
    async def bon(request: BonBody, http: Request) -> BonResponse | BonManyResponse:
        """Score the candidates as answers to the prompt and name the best one; in `requests` for up
        to 1,024 prompts.
        """
        scoring = served.of(request.model)
        is_joint = isinstance(scoring, Ensemble)
        if is_joint and request.probabilities:
            raise ApiError(
                422, "probabilities: an ensemble has no temperature", param="probabilities"
            )
        calibration = scoring.facts.calibration if request.normalize else None
        if request.normalize and calibration is None and not is_joint:  # which is normalized
            raise ApiError(
                422,
                "normalize: this service has no calibration (serving.score_mean and score_std)",
                param="normalize",
            )
        if "run" in (request.stages or ()) and not settings.execute:
            raise not_executed("serving.execute is false")
        items: list[BonItem] = [request] if isinstance(request, BonRequest) else request.requests
        for place, item in enumerate(items):
            if len(item.candidates) > settings.max_candidates:
                param = "candidates" if item is request else f"requests.{place}.candidates"
                num, most = len(item.candidates), settings.max_candidates
                raise ApiError(422, f"{param}: {num} exceed max_candidates={most}", param=param)
        caller = caller_of(http.scope)
        if isinstance(request, BonRequest):
            result = await scoring.score(caller, request.asked(request, scoring.cut))
            return BonResponse(
                model=scoring.model_name, **fields_of(result, request, request, calibration)
            )
        outcomes: list[Any] = []
        for item in items:
            try:
                outcomes.append(request.asked(item, scoring.cut))
            except InputError as error:
                outcomes.append(error)
        asked = [place for place, item in enumerate(outcomes) if isinstance(item, ScoringRequest)]
        found = await scoring.score_each(caller, [outcomes[place] for place in asked])
        for place, outcome in zip(asked, found, strict=True):
            outcomes[place] = outcome
        results = [
            BonItemResult(index=place, **fields_of(outcome, items[place], request, calibration))
            for place, outcome in enumerate(outcomes)
        ]
        is_partial = any(item.partial for item in results)
        return BonManyResponse(model=scoring.model_name, partial=is_partial, results=results)

    add_dialects(app, served, failures)

    async def card(model: ScoringPath) -> ModelCard:
        memory, is_ready = None, True
        try:
            memory = await model.check_ready()
        except Unavailable:
            is_ready = False
        return ModelCard(
            id=model.model_name,
            weights_digest=model.weights_digest,
            max_model_len=model.facts.max_model_len,
            dtype=model.facts.dtype,
            quantization=model.facts.quantization,
            members=[*served.single] if isinstance(model, Ensemble) else None,
            ready=is_ready,
            host_memory_bytes=memory,
        )

    @app.get("/v1/models", response_model=ModelList, responses={401: failures[401]})
    async def models() -> ModelList:
        """The served models, and which weights they have. The first is that of requests that name
        none.
        """
        return ModelList(data=await all_of([card(model) for model in served.all.values()]))

    @app.get(
        "/v1/models/{name:path}",
        response_model=ModelCard,
        responses={401: failures[401], 404: failures[404]},
    )
    async def model(name: str) -> ModelCard:
        """A served model by its name."""
        return await card(served.of(name))

    @app.get("/info", responses={401: failures[401]})
    async def info() -> dict[str, Any]:
        """The first model, as TEI tells it."""
        return {
            "model_id": settings.model_name,
            "model_sha": served.of(None).weights_digest,
            "model_dtype": settings.dtype,
            "model_type": {"reranker": {"id2label": {"0": settings.label}}},
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_input_length": settings.max_model_len,
            "max_client_batch_size": MAX_TEXTS,
            "version": __version__,
        }

    if admins is not None:

        @app.post(WEIGHTS_PATH, response_model=WeightsAnswer, responses=failures)
        async def admin_weights(request: WeightsRequest) -> WeightsAnswer:
            """Score by other weights of the same shape from now on. Needs the admin key."""
            start_s = time.monotonic()
            place = allowed_place(request.path, settings.weight_roots)
            await served.one(request.model).load_weights(place, request.weights_digest)
            return WeightsAnswer(
                weights_digest=request.weights_digest, load_s=time.monotonic() - start_s
            )

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """A playground. Needs no key; its calls do."""
        return playground()

    @app.get("/health", response_model=Status)
    async def health() -> Status:
        """The process answers. Needs no key."""
        return Status(status="ok")

    @app.get("/ready", response_model=Status, responses={503: {"model": ErrorBody}})
    async def ready(http: Request) -> Status:
        """A request would be scored now, by any model. Needs no key; with one it names the models
        that are away.
        """
        if doors.are_closing:
            raise Unavailable
        if away := await served.away():
            raise Unavailable(*(away if caller_of(http.scope) else ()))
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
        admins=admins,
    )
    # The last one added is the outermost.
    routes = frozenset(route.path for route in app.routes if isinstance(route, Route))
    traces = Traces(settings.otlp_traces_endpoint) if settings.otlp_traces_endpoint else None
    app.add_middleware(Observer, metrics=metrics, routes=routes, traces=traces)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
            expose_headers=["retry-after", "x-request-id", *ANSWER_HEADERS],
        )
    describe_keys(app)
    return app


__all__ = ["Backend", "ServiceSettings", "Unavailable", "create_app"]
