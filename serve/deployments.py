"""The two Ray Serve deployments: a light HTTP ingress, and replicas that hold a model each.

    client -> Serve proxy -> Ingress (keys, limits, errors; no model) -> ScorerReplica x N

Tokenising, scoring and ranking happen in the replica, so one request is one hop and what crosses it
is text in, a small result out.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from codepmp_ray.cluster.scorers import make_scorer
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import DeadlineError, InputError
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest, plan_request, rank
from codepmp_ray.scoring.protocol import Scorer

from .app import ServiceSettings, create_app
from .autoscaling import METRIC
from .draining import Doors
from .errors import Unavailable
from .router import num_replicas
from .scoring import less_time

_READY_TIMEOUT_S = 5.0
# A replica answers at the deadline with what it has; this is for the way back.
_GRACE_S = 1.0
# Failures that a replica which is starting, restarting or gone causes.
_GONE = (RayActorError, BackPressureError, DeploymentUnavailableError, RequestCancelledError)


class ScorerReplica:
    """One copy of the model: encoder and scorer."""

    def __init__(self, model_path: str, config: dict[str, Any], num_gpus: float) -> None:
        folder, serving = resolve_model(model_path), ServingConfig.model_validate(config)
        self._scorer = self.make_scorer(folder, serving, num_gpus)
        self._encoder = Encoder.load(folder, serving.template)
        self._tokens_in_flight = 0
        # One thread: a long text must not hold up the event loop, and the tokenizer is not shared.
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizing")

    def make_scorer(self, model_path: str, config: ServingConfig, num_gpus: float) -> Scorer:
        """Where a benchmark puts a fake."""
        return make_scorer(model_path, config, num_gpus)

    async def score(
        self, requests: list[ScoringRequest]
    ) -> list[BestOfN] | InputError | DeadlineError:
        """The caller's errors are returned: Serve would log them, texts included, if raised."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._best_of_n(request)) for request in requests]
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            if isinstance(first, InputError | DeadlineError):
                return first
            raise first from None
        return [task.result() for task in tasks]

    async def _best_of_n(self, request: ScoringRequest) -> BestOfN:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        plan = await loop.run_in_executor(
            self._tokenizing,
            plan_request,
            self._encoder,
            self._scorer.max_model_len,
            request,
        )
        num_tokens = len(plan.prompt_ids) + plan.num_response_tokens
        left_s = request.timeout_s
        if left_s is not None:
            left_s = max(left_s - (loop.time() - start_s), 0.0)
        self._tokens_in_flight += num_tokens
        try:
            scores = await self._scorer.score_ids(plan.prompt_ids, plan.response_ids, left_s)
        finally:
            self._tokens_in_flight -= num_tokens
        return rank(plan, scores)

    async def score_ids(
        self, prompt_ids: list[int], responses: list[list[int]]
    ) -> list[float | None]:
        """What the engine makes of ids, for serve/parity.py."""
        return (await self._scorer.score_ids(prompt_ids, responses)).rewards

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by Serve for serve/autoscaling.py."""
        return {METRIC: float(self._tokens_in_flight)}

    async def check_ready(self) -> None:
        await self.check_health()

    async def check_health(self) -> None:
        """Called by Serve too, which replaces a replica that fails here."""
        check = getattr(self._scorer, "check_health", None)
        if check is not None:
            await check()

    def __del__(self) -> None:
        # Called by Serve when the replica is stopped. A failed __init__ leaves no scorer.
        shutdown = getattr(getattr(self, "_scorer", None), "shutdown", None)
        if shutdown is not None:
            shutdown()


@serve.ingress()
class Ingress:
    """The HTTP side. Serve calls `__serve_build_asgi_app__` once, in the replica."""

    def __init__(self, settings: dict[str, Any], scorer: DeploymentHandle) -> None:
        self._settings = ServiceSettings.model_validate(settings)
        self._scorer = scorer
        self._doors = Doors()

    def __serve_build_asgi_app__(self) -> Any:
        name = self._scorer.deployment_name
        backend = HandleBackend(self._scorer)
        return create_app(self._settings, backend, self._doors, lambda: num_replicas(name))

    async def close_doors(self) -> int:
        """From now on new requests get 503. Returns how many are still being answered."""
        self._doors.are_closing = True
        return self._doors.num_inside


class HandleBackend:
    """A Backend over the scorer's deployment handle."""

    def __init__(self, scorer: DeploymentHandle) -> None:
        self._scorer = scorer

    async def score(self, requests: list[ScoringRequest]) -> list[BestOfN]:
        """One call for all: Serve gives the calls that one HTTP request makes the same id, and a
        request router tells them apart by it.

        A call whose replica dies goes to another one, once: it may be what kills them.
        """
        start_s = time.monotonic()
        try:
            outcome = await self._call(requests)
        except RayActorError:
            waited_s = time.monotonic() - start_s
            try:
                outcome = await self._call([less_time(request, waited_s) for request in requests])
            except _GONE as error:
                raise Unavailable from error
        except _GONE as error:
            raise Unavailable from error
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _call(self, requests: list[ScoringRequest]) -> Any:
        """Raises DeadlineError too when no replica takes the call in its time."""
        times = [request.timeout_s for request in requests if request.timeout_s is not None]
        try:
            async with asyncio.timeout(min(times) + _GRACE_S if times else None):
                return await self._scorer.score.remote(requests)
        except TimeoutError:
            raise DeadlineError(
                "No replica answered before the deadline.", "Allow more time or come back later."
            ) from None

    async def check_ready(self) -> None:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await self._scorer.check_ready.remote()
        except (TimeoutError, *_GONE) as error:
            raise Unavailable from error
