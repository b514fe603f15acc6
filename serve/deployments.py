"""The two Ray Serve deployments: a light HTTP ingress, and replicas that hold a model each.

    client [-> Serve proxy] -> ingress (keys, limits, errors; no model) -> ScorerReplica x N

A job's ingress listens itself; an application of a Serve config is behind Serve's proxy.

Tokenising, scoring and ranking happen in the replica, so one request is one hop and what crosses it
is text in, a small result out.
"""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import psutil
from ray import serve
from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle

from codepmp_ray.cluster.scorers import make_scorer
from codepmp_ray.cluster.turns import Turns
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import CodePMPError, DeadlineError, InputError, SandboxUnavailable
from codepmp_ray.modeling.sources import model_store, resolve_model
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest, plan_request, rank
from codepmp_ray.scoring.calibration import temperature_of
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.scoring.protocol import Scorer
from codepmp_ray.weights_digest import weights_digest

from .app import ServiceSettings, create_app
from .autoscaling import METRIC
from .draining import Doors
from .handle_backend import HandleBackend
from .listening import HttpServer, Listener, received
from .owner import end_with
from .router import num_replicas
from .scoring import Outcome, all_of
from .stages import StagedScoring
from .weights import Weights, require_same_shape

_MAX_TOKENIZERS = 4  # threads of a replica that tokenise, each with a tokenizer of its own
T = TypeVar("T")


class ScorerReplica:
    """One copy of the model: encoders and scorer."""

    def __init__(self, model_path: str, config: dict[str, Any], num_gpus: float) -> None:
        folder = resolve_model(model_path)
        self._config = ServingConfig.model_validate(config)
        self._scorer = self.make_scorer(folder, self._config, num_gpus)
        encoder = Encoder.load(folder, self._config.template)
        self._prepare(folder, encoder, temperature_of(model_store(model_path)))

    def _prepare(self, folder: str, encoder: Encoder, temperature: float = 1.0) -> None:
        """What every replica has beside its scorer."""
        self._temperature = temperature
        self._first_folder = self._folder = folder
        self._tokens_in_flight = 0
        self._weights = Weights(0)
        self._turns, self._loading = Turns(), asyncio.Lock()
        self._staged_scoring = StagedScoring(self._config.sandbox)
        self._num_tokenizers = min(_MAX_TOKENIZERS, len(os.sched_getaffinity(0)))
        # A long text must not hold up the event loop, nor the texts of others.
        self._tokenizing = ThreadPoolExecutor(self._num_tokenizers, thread_name_prefix="tokenizing")
        self._encoders = _for_threads(encoder, self._num_tokenizers)

    def make_scorer(self, model_path: str, config: ServingConfig, num_gpus: float) -> Scorer:
        """Where a benchmark puts a fake."""
        return make_scorer(model_path, config, num_gpus)

    async def score(
        self, requests: list[ScoringRequest], weights: Weights | None = None
    ) -> list[Outcome]:
        """By `weights`, or newer ones. The caller's errors are returned: Serve would log them,
        texts included, if raised.
        """
        if weights is not None and weights.version > self._weights.version:
            await self._swap(weights)
        return await all_of([self._outcome(request) for request in requests])

    async def _outcome(self, request: ScoringRequest) -> Outcome:
        try:
            return await self._staged_scoring.best_of_n(request, self._scored)
        except (InputError, DeadlineError, SandboxUnavailable) as error:
            return error

    async def _scored(self, request: ScoringRequest) -> BestOfN:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        async with self._turns.turn(alone=False):
            plan = await self._with_encoder(
                lambda encoder: plan_request(
                    encoder, self._scorer.max_model_len, request, self._vocab_size
                )
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
            made_by = {"weights_digest": self._weights.digest, "temperature": self._temperature}
            return replace(rank(plan, scores), **made_by)

    async def tokenize(self, request: ScoringRequest) -> list[int] | InputError:
        """Ids of prompt and the one candidate together; of the prompt alone if that is empty."""
        longest = max(self._scorer.max_model_len, 2**20)  # counted, not refused
        try:
            plan = await self._with_encoder(
                lambda encoder: plan_request(encoder, longest, request, self._vocab_size)
            )
        except InputError as error:
            return error
        if plan.prompt_ids and not request.candidates[0]:
            return plan.prompt_ids
        return plan.prompt_ids + plan.responses[0].ids

    async def load_weights(self, weights: Weights) -> CodePMPError | None:
        """Score by `weights` from now on. What is wrong with them is returned."""
        try:
            await self._swap(weights)
        except CodePMPError as error:
            return error
        return None

    async def _swap(self, weights: Weights) -> None:
        """Load beside those who are being scored; then change over alone. New calls wait."""
        loop = asyncio.get_running_loop()
        async with self._loading:
            if weights.version <= self._weights.version:
                return
            base = await loop.run_in_executor(None, weights_digest, self._first_folder)
            if weights.base != base:  # meant for another version of the service
                return
            folder, encoders, temperature, staged = await loop.run_in_executor(
                None, self._staged, weights
            )
            async with self._turns.turn(alone=True):
                await self._scorer.take_weights(staged)
                self._folder, self._encoders, self._weights = folder, encoders, weights
                self._temperature = temperature

    def _staged(self, weights: Weights) -> tuple[str, queue.SimpleQueue[Encoder], float, Any]:
        folder = resolve_model(weights.path)
        require_model(self._config, folder)
        require_same_shape(self._folder, folder, weights.digest)
        encoders = _for_threads(Encoder.load(folder, self._config.template), self._num_tokenizers)
        temperature = temperature_of(model_store(weights.path))
        return folder, encoders, temperature, self._scorer.stage_weights(folder)

    async def newest_weights(self) -> Weights:
        return self._weights

    async def score_ids(
        self, prompt_ids: list[int], responses: list[list[int]]
    ) -> list[float | None]:
        """What the engine makes of ids, for serve/parity.py."""
        return (await self._scorer.score_ids(prompt_ids, responses)).rewards

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by Serve for serve/autoscaling.py."""
        return {METRIC: float(self._tokens_in_flight)}

    async def check_ready(self) -> int:
        """Bytes of memory that its processes hold; vLLM has some of its own."""
        await self.check_health()
        own = psutil.Process()
        held = 0
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                held += process.memory_info().rss
        return held

    async def check_health(self) -> None:
        """Called by Serve too, which replaces a replica that fails here."""
        check = getattr(self._scorer, "check_health", None)
        if check is not None:
            await check()

    @property
    def _vocab_size(self) -> int | None:
        return getattr(self._scorer, "vocab_size", None)

    async def _with_encoder(self, function: Callable[[Encoder], T]) -> T:
        """`function` in a thread, with an encoder that no other thread uses meanwhile."""
        encoders = self._encoders

        def call() -> T:
            encoder = encoders.get()
            try:
                return function(encoder)
            finally:
                encoders.put(encoder)

        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, call)

    def __del__(self) -> None:
        # Called by Serve when the replica is stopped. A failed __init__ leaves no scorer.
        shutdown = getattr(getattr(self, "_scorer", None), "shutdown", None)
        if shutdown is not None:
            shutdown()


def _for_threads(encoder: Encoder, num: int) -> queue.SimpleQueue[Encoder]:
    encoders: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
    for number in range(num):
        encoders.put(encoder if number == 0 else encoder.copy())
    return encoders


class _Ingress:
    """The HTTP side. `scorers` are those of each model by its name. `owner` is an actor of the job
    that started the service: with it the service ends.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        scorers: dict[str, DeploymentHandle],
        owner: ActorHandle | None = None,
    ) -> None:
        self._settings = ServiceSettings.model_validate(settings)
        self._scorers = scorers
        self._doors = Doors()
        if owner is not None:
            end_with(owner)

    def _app(self) -> Any:
        settings = self._settings
        may_change = bool(settings.admin_key_sha256)
        backends = {
            facts.model_name: HandleBackend(
                self._scorers[facts.model_name], facts.weights_digest if may_change else None
            )
            for facts in (settings, *settings.other_models)
        }

        def replicas_of(model: str) -> int:
            return num_replicas(self._scorers[model].deployment_name)

        return create_app(settings, backends, self._doors, replicas_of)

    async def close_doors(self) -> int:
        """From now on new requests get 503. Returns how many are still being answered."""
        self._doors.are_closing = True
        return self._doors.num_inside


@serve.ingress()
class ProxiedIngress(_Ingress):
    """Behind Serve's proxy, as one application of several. Serve calls `__serve_build_asgi_app__`
    once, in the replica.
    """

    def __serve_build_asgi_app__(self) -> Any:
        return self._app()


class ListeningIngress(_Ingress):
    """Takes its connections itself, from `listener`."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: dict[str, Any],
        scorers: dict[str, DeploymentHandle],
        owner: ActorHandle | None,
        listener: Listener,
    ) -> None:
        super().__init__(settings, scorers, owner)
        for scorer in scorers.values():
            # Its calls begin and end in this event loop: no thread is woken up for each.
            scorer._init(_run_router_in_separate_loop=False)
        self._server = HttpServer(self._app(), listener.tls)
        self._server.begin(received(listener.path))

    async def check_health(self) -> None:
        """Called by Serve, which replaces an ingress that fails here."""
        if self._server.has_ended:
            raise RuntimeError("The HTTP server has ended.")

    async def __del__(self) -> None:
        """Called by Serve when the replica is stopped."""
        if hasattr(self, "_server"):
            await self._server.end()
