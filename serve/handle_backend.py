"""The ingress's side of the replicas: calls through their deployment's handle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from codepmp_ray.errors import CodePMPError, DeadlineError, InputError
from codepmp_ray.scoring.best_of_n import ScoringRequest

from .errors import Unavailable
from .scoring import Outcome, less_time
from .weights import Weights

_READY_TIMEOUT_S = 5.0
_READY_AGE_S = 1.0  # an answer is good for so long: whoever asks needs no key
# A replica answers at the deadline with what it has; this is for the way back.
_GRACE_S = 1.0
# Failures that a replica which is starting, restarting or gone causes.
_GONE = (RayActorError, BackPressureError, DeploymentUnavailableError, RequestCancelledError)


class HandleBackend:
    """A Backend over the scorer's deployment handle.

    Args:
        base: digest of the weights that the service was started with, where others may be loaded.
            Each call then says which ones the service has: a replica that was started again loads
            them before it scores.
    """

    def __init__(self, scorer: DeploymentHandle, base: str | None = None) -> None:
        self._scorer, self._base = scorer, base
        self._direct = scorer.options(_by_reference=False)
        self._weights: Weights | None = None
        self._must_ask = base is not None
        self._asking = asyncio.Lock()
        self._ready: tuple[float, int | Exception | None] = (-_READY_AGE_S, None)

    async def score(self, requests: list[ScoringRequest]) -> Sequence[Outcome]:
        """One call for all: Serve gives the calls that one HTTP request makes the same id, and a
        request router tells them apart by it.

        A call whose replica dies goes to another one, once: it may be what kills them. The first
        goes straight to the replica by gRPC, which costs less; the second by Ray, which knows which
        ones are dead.
        """
        start_s = time.monotonic()
        await self._find_weights()
        try:
            return await self._call(self._direct, requests)
        except RayActorError:
            waited_s = time.monotonic() - start_s
            left = [less_time(request, waited_s) for request in requests]
            try:
                return await self._call(self._scorer, left)
            except _GONE as error:
                raise Unavailable from error
        except _GONE as error:
            raise Unavailable from error

    async def tokenize(self, request: ScoringRequest) -> list[int]:
        await self._find_weights()
        try:
            found = await self._scorer.tokenize.remote(request)
        except _GONE as error:
            raise Unavailable from error
        if isinstance(found, InputError):
            raise found
        return found

    async def load_weights(self, weights: Weights) -> None:
        """In every replica. Raises InputError for the first that cannot."""
        for error in await self._broadcast("load_weights", weights):
            if isinstance(error, CodePMPError):
                raise InputError(error.problem, error.remedy)
        self._weights = weights

    async def check_ready(self) -> int | None:
        """The answer of all who ask within a second is one replica's."""
        async with self._asking:
            if time.monotonic() - self._ready[0] >= _READY_AGE_S:
                self._ready = (time.monotonic(), await self._readiness())
        if isinstance(found := self._ready[1], Exception):
            raise Unavailable from found
        return found

    async def _readiness(self) -> int | Exception | None:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                return await self._direct.check_ready.remote()  # the way that calls go
        except (TimeoutError, *_GONE) as error:
            return error

    async def _call(self, scorer: DeploymentHandle, requests: list[ScoringRequest]) -> Any:
        """Raises DeadlineError too when no replica takes the call in its time."""
        times = [request.timeout_s for request in requests if request.timeout_s is not None]
        try:
            async with asyncio.timeout(min(times) + _GRACE_S if times else None):
                return await scorer.score.remote(requests, self._weights)
        except TimeoutError:
            raise DeadlineError(
                "No replica answered before the deadline.", "Allow more time or come back later."
            ) from None

    async def _find_weights(self) -> None:
        """Once: an ingress that was started again asks the replicas what they were told before."""
        if self._must_ask:
            found: list[Weights] = await self._broadcast("newest_weights")
            known = [weights for weights in found if weights.version and weights.base == self._base]
            if known and self._weights is None:
                self._weights = max(known, key=lambda weights: weights.version)
            self._must_ask = False

    async def _broadcast(self, method: str, *values: Any) -> list[Any]:
        try:
            return await self._scorer.broadcast(method, *values).results_async()
        except _GONE as error:
            raise Unavailable from error
