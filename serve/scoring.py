"""The one path from a request, whatever dialect it came in, to its scores."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from codepmp_ray.errors import DeadlineError, InputError, SandboxUnavailable
from codepmp_ray.scoring.best_of_n import (
    REFUSE,
    BestOfN,
    Cut,
    ScoringRequest,
    num_chars,
    require_scores,
    unscored,
)

from .admission import Admission, TokenEstimate
from .errors import ApiError, Unavailable, not_executed
from .observation import Metrics, header, note
from .quotas import Quotas
from .schemas import MAX_CANDIDATES
from .settings import ModelFacts
from .weights import Weights

logger = logging.getLogger("ray.serve")
# What a call holds while it waits beside its texts: connection, task, parsed body.
_BYTES_OF_A_CALL = 32_768
ANSWER_HEADERS = _DIGEST_HEADER, _TRUNCATED_HEADER = "x-codepmp-weights", "x-codepmp-truncated"

Outcome = BestOfN | InputError | DeadlineError | SandboxUnavailable
T = TypeVar("T")


class Backend(Protocol):
    """What scores."""

    async def score(self, requests: list[ScoringRequest]) -> Sequence[Outcome]:
        """One outcome for each. An InputError (it cannot be scored) or a DeadlineError (its time
        passed without a score) may be raised too: it is then that of all of them.

        Raises Unavailable if they may be scored soon.
        """
        ...

    async def tokenize(self, request: ScoringRequest) -> list[int]:
        """Ids of the one candidate as it would be scored, the prompt's included.

        Raises InputError and Unavailable.
        """
        ...

    async def load_weights(self, weights: Weights) -> None:
        """From now on all are scored by `weights`; those who wait meanwhile wait longer.

        Raises InputError for weights that cannot be loaded, Unavailable.
        """
        ...

    async def check_ready(self) -> int | None:
        """Bytes of memory that the processes of a replica hold, where that is known.

        Raises Unavailable unless a request would be scored now.
        """
        ...


class ScoringPath:
    """From requests to scores of a model, or of several as one. `score` and `score_all` are what
    routes call.

    Args:
        cut: what happens to a text that is too long, where the request does not say.
    """

    def __init__(self, facts: ModelFacts, cut: Cut = REFUSE) -> None:
        self.facts, self.model_name, self.cut = facts, facts.model_name, cut
        self._digest = facts.weights_digest

    @property
    def weights_digest(self) -> str | None:
        """Of the newest answer."""
        return self._digest

    async def score_each(
        self, caller: str, requests: Sequence[ScoringRequest]
    ) -> list[BestOfN | InputError]:
        """The result of each prompt of one HTTP request, or why there is none.

        Raises ApiError, DeadlineError where it is one prompt's, and what Backend raises.
        """
        raise NotImplementedError

    async def tokenize(self, caller: str, request: ScoringRequest) -> list[int]:
        """See Backend."""
        raise NotImplementedError

    async def check_ready(self) -> int | None:
        """See Backend. Unavailable names the model."""
        raise NotImplementedError

    async def score(
        self, caller: str, request: ScoringRequest, param: str = "candidates"
    ) -> BestOfN:
        """`score_all` for one request."""
        return (await self.score_all(caller, [request], param))[0]

    async def score_all(
        self, caller: str, requests: Sequence[ScoringRequest], param: str
    ) -> list[BestOfN]:
        """Scores of the prompts of one HTTP request: all or an error.

        `param` is the field that holds the texts. Raises ApiError 422 for a text that cannot be
        scored, and what `score_each` raises.
        """
        results = []
        for outcome in await self.score_each(caller, requests):
            if isinstance(outcome, InputError):
                is_text = outcome.problem.startswith("Text ")
                raise ApiError(422, str(outcome), param=param if is_text else None)
            results.append(outcome)
        require_scores(results)
        return results

    def _tell(self, results: list[BestOfN]) -> None:
        """In the log line and the answer's headers."""
        note(
            num_candidates=sum(len(result.candidates) for result in results),
            num_prompt_tokens=sum(result.num_prompt_tokens for result in results),
            num_candidate_tokens=sum(result.num_response_tokens for result in results),
        )
        num_cut = sum(item.truncated for result in results for item in result.candidates)
        if num_cut:
            header(_TRUNCATED_HEADER, str(num_cut))
        digests = list(dict.fromkeys(result.weights_digest for result in results))
        if digests and digests[-1]:
            self._digest = digests[-1]
            header(_DIGEST_HEADER, ", ".join(filter(None, digests)))


class ModelPath(ScoringPath):
    """One model: limits, admission and the backend.

    Args:
        facts: their digest is that of what the service was started with.
        key_name: what figures call a caller.
    """

    def __init__(
        self,
        facts: ModelFacts,
        admission: Admission,
        backend: Backend,
        metrics: Metrics,
        cut: Cut = REFUSE,
        key_name: Callable[[str], str] = str,
        quotas: Quotas | None = None,
    ) -> None:
        super().__init__(facts, cut)
        self.admission, self._backend, self._metrics = admission, backend, metrics
        self._estimate = TokenEstimate(max_model_len=facts.max_model_len)
        self._loading = asyncio.Lock()
        self._key_name, self._quotas = key_name, quotas or Quotas({})

    async def score_each(
        self, caller: str, requests: Sequence[ScoringRequest]
    ) -> list[BestOfN | InputError]:
        """See ScoringPath. A call of many is split, and each part waits for a turn of its own. Time
        spent waiting counts against `timeout_s`; what was not scored in time has no scores.
        Raises ApiError 429 without room, 501 where stages execute and nothing can be,
        DeadlineError where it is one prompt's, and what Backend raises.
        """
        self._quotas.enter(caller)
        parts = list(_parts(requests))
        # What the call holds is counted once, with its first part.
        num_bytes = _BYTES_OF_A_CALL + sum(map(num_chars, requests))
        found = await all_of(
            [
                self._score_part(caller, part, 0 if number else num_bytes)
                for number, part in enumerate(parts)
            ]
        )
        results: list[BestOfN | InputError] = []
        for part, outcomes in zip(parts, found, strict=True):
            for request, outcome in zip(part, outcomes, strict=True):
                if isinstance(outcome, DeadlineError):
                    if len(requests) == 1:
                        raise outcome
                    outcome = unscored(request)
                if isinstance(outcome, SandboxUnavailable):
                    logger.error("Nothing is executed: %s", outcome)
                    raise not_executed("no sandbox works where the model is")
                results.append(outcome)
        scored = [result for result in results if isinstance(result, BestOfN)]
        self._metrics.used(self._key_name(caller), scored)
        num_tokens = sum(one.num_prompt_tokens + one.num_response_tokens for one in scored)
        self._quotas.use(caller, "tokens", num_tokens)
        self._tell(scored)
        return results

    async def tokenize(self, caller: str, request: ScoringRequest) -> list[int]:
        """See Backend. It waits for its turn like a request to score."""
        num_bytes = _BYTES_OF_A_CALL + num_chars(request)
        async with self.admission.admit(caller, self._estimate(request), None, num_bytes):
            with self._named():
                return await self._backend.tokenize(request)

    async def check_ready(self) -> int | None:
        with self._named():
            return await self._backend.check_ready()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Unavailable says which model is away."""
        try:
            yield
        except Unavailable as error:
            raise Unavailable(self.model_name) from error

    async def load_weights(self, path: str, digest: str) -> None:
        """See Backend. Calls at once are done in their order, and one whose caller leaves is done
        to its end: replicas of different weights would stay behind.
        """

        async def load() -> None:
            async with self._loading:
                weights = Weights(time.time_ns(), path, digest, self.facts.weights_digest)
                await self._backend.load_weights(weights)
                self._digest = digest

        await asyncio.shield(asyncio.create_task(load()))

    async def _score_part(
        self, caller: str, requests: list[ScoringRequest], num_bytes: int
    ) -> Sequence[Outcome]:
        start_s = time.monotonic()
        tokens = sum(map(self._estimate, requests))
        times = [request.timeout_s for request in requests if request.timeout_s is not None]
        try:
            async with self.admission.admit(caller, tokens, min(times, default=None), num_bytes):
                waited_s = time.monotonic() - start_s
                self._metrics.seconds.labels("waiting").observe(waited_s)
                left = [less_time(request, waited_s) for request in requests]
                with self._named():
                    outcomes = await self._backend.score(left)
                scored_s = time.monotonic() - start_s - waited_s
                self._metrics.seconds.labels("scoring").observe(scored_s)
        except (DeadlineError, InputError) as error:
            return [error] * len(requests)
        note(caller=caller, waiting_s=round(waited_s, 4), scoring_s=round(scored_s, 4))
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, BestOfN):
                self._estimate.learn(request, outcome)
                self._metrics.scored(outcome)
        return [self._with_digest(outcome) for outcome in outcomes]

    def _with_digest(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, BestOfN) and outcome.weights_digest is None:
            return replace(outcome, weights_digest=self.facts.weights_digest)
        return outcome


def _parts(requests: Sequence[ScoringRequest]) -> Iterator[list[ScoringRequest]]:
    """The requests in their order, at most MAX_CANDIDATES texts together where they have fewer."""
    part: list[ScoringRequest] = []
    num_texts = 0
    for request in requests:
        if part and num_texts + len(request.candidates) > MAX_CANDIDATES:
            yield part
            part, num_texts = [], 0
        part.append(request)
        num_texts += len(request.candidates)
    if part:
        yield part


async def all_of(calls: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Results of all; the first that raises ends the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def less_time(request: ScoringRequest, waited_s: float) -> ScoringRequest:
    """The request of which `waited_s` of its time have passed."""
    if request.timeout_s is None:
        return request
    return replace(request, timeout_s=max(request.timeout_s - waited_s, 0.0))
