"""The one path from a request, whatever dialect it came in, to its scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest

from .admission import Admission, TokenEstimate
from .errors import ApiError
from .observation import Metrics, note


class Backend(Protocol):
    """What scores."""

    async def score(self, requests: list[ScoringRequest]) -> list[BestOfN]:
        """Raises InputError for a request that cannot be scored, DeadlineError if its time passed
        without a score, Unavailable if it may be scored soon.
        """
        ...

    async def check_ready(self) -> None:
        """Raises Unavailable unless a request would be scored now."""
        ...


class ScoringPath:
    """Limits, admission and the backend. `score` and `score_all` are what routes call.

    Args:
        model_name: what requests may name as their model.
        max_candidates: texts of one HTTP request.
    """

    def __init__(
        self,
        model_name: str,
        max_candidates: int,
        admission: Admission,
        backend: Backend,
        metrics: Metrics,
    ) -> None:
        self.model_name, self._max_candidates = model_name, max_candidates
        self._admission, self._backend, self._metrics = admission, backend, metrics
        metrics.in_flight.set_function(lambda: admission.num_running_tokens)
        metrics.waiting.set_function(lambda: admission.num_waiting_tokens)
        self._estimate = TokenEstimate()

    def require_model(self, name: str | None) -> None:
        """Raises ApiError 404 for another model than the one that is served."""
        if name is not None and name != self.model_name:
            raise ApiError(
                404,
                f"The model {name!r} is not served here; {self.model_name!r} is.",
                param="model",
                code="model_not_found",
            )

    async def score(
        self, caller: str, request: ScoringRequest, param: str = "candidates"
    ) -> BestOfN:
        """`score_all` for one request."""
        return (await self.score_all(caller, [request], param))[0]

    async def score_all(
        self, caller: str, requests: Sequence[ScoringRequest], param: str
    ) -> list[BestOfN]:
        """Scores of the prompts of one HTTP request, admitted as one unit; all or an error.

        Time spent waiting counts against `timeout_s`. `param` is the field that holds the texts.
        Raises ApiError 422 for too many texts, 429 without room, and what Backend raises.
        """
        num_texts = sum(len(request.candidates) for request in requests)
        if num_texts > self._max_candidates:
            raise ApiError(
                422,
                f"{param}: {num_texts} exceed max_candidates={self._max_candidates}",
                param=param,
            )
        start_s = time.monotonic()
        tokens = sum(map(self._estimate, requests))
        times = [request.timeout_s for request in requests if request.timeout_s is not None]
        async with self._admission.admit(caller, tokens, min(times, default=None)):
            waited_s = time.monotonic() - start_s
            self._metrics.seconds.labels("waiting").observe(waited_s)
            results = await self._backend.score(
                [less_time(request, waited_s) for request in requests]
            )
            scored_s = time.monotonic() - start_s - waited_s
            self._metrics.seconds.labels("scoring").observe(scored_s)
        note(
            caller=caller,
            num_candidates=num_texts,
            num_prompt_tokens=sum(result.num_prompt_tokens for result in results),
            num_candidate_tokens=sum(result.num_response_tokens for result in results),
            waiting_s=round(waited_s, 4),
            scoring_s=round(scored_s, 4),
        )
        for request, result in zip(requests, results, strict=True):
            self._estimate.learn(request, result)
            self._metrics.scored(result)
        return results


def less_time(request: ScoringRequest, waited_s: float) -> ScoringRequest:
    """The request of which `waited_s` of its time have passed."""
    if request.timeout_s is None:
        return request
    return replace(request, timeout_s=max(request.timeout_s - waited_s, 0.0))
