"""The two clients. What they send, and when again, is in attempts.py."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import httpx

from codepmp_ray.client.answers import (
    CandidateScore,
    Choice,
    Hints,
    ServedModel,
    best_of,
    read_body,
    read_served_model,
)
from codepmp_ray.client.attempts import Attempts, Call, Prompt, Stages
from codepmp_ray.client.stopping import Drawing, Stop, answers
from codepmp_ray.errors import DeadlineError, EngineError, InputError

_DEFAULT_HINTS = Hints()
_CARD_TIMEOUT_S = 30.0


class _Common:
    """Address and headers."""

    def __init__(
        self, url: str, api_key: str | None, hints: Hints, ca_file: str | None, model: str | None
    ) -> None:
        self.url, self._hints, self._model = url.rstrip("/"), hints, model
        self._address = f"{self.url}/v1/bon"
        self._card: dict[str, Any] = {"url": f"{self.url}/v1/models", "timeout": _CARD_TIMEOUT_S}
        key = os.environ.get(hints.key, "") if api_key is None else api_key
        self._options: dict[str, Any] = {
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            # Proxies of the environment are for the outside world, not for a service beside us.
            "trust_env": False,
            "verify": ssl.create_default_context(cafile=ca_file) if ca_file else True,
        }

    def _call(
        self, prompt: Prompt, candidates: list[str], deadline_ms: int | None, stages: Stages | None
    ) -> Call:
        more: dict[str, Any] = {"model": self._model} if self._model else {}
        more |= stages.fields() if stages else {}
        return Call(self.url, self._hints, prompt, candidates, deadline_ms, more)

    def _served_model(self, answer: httpx.Response) -> ServedModel:
        address = self._card["url"]
        body = read_body(answer, address, self._hints)
        return read_served_model(body, address, self._model)

    def _require_weights(self, stop: Stop, served: ServedModel) -> None:
        """Raises InputError where the rule is not for the rewards of the served weights."""
        if served.weights_digest != stop.weights_digest:
            raise InputError(
                f"{self.url} serves the weights {served.weights_digest}, and the threshold is for "
                f"{stop.weights_digest}.",
                "Fit it again to the rewards of these weights (codepmp eval pools).",
            )

    def _unreachable(self, error: Exception) -> EngineError:
        return EngineError(
            f"The service at {self.url} cannot be reached ({error or type(error).__name__}).",
            f"Check {self._hints.address}, and that the service runs (GET /health).",
        )


class RewardClient(_Common):
    """Context manager; safe for use from several threads.

    Args:
        url: the service's address without a path, for example "http://127.0.0.1:9000".
        api_key: bearer token, "" to send none; by default that of $CODEPMP_API_KEY.
        ca_file: PEM file of the authority (or the certificate itself) behind an https address that
            the system does not know.
        model: one of several that the service has, or "ensemble"; None is its first.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        hints: Hints = _DEFAULT_HINTS,
        sleep: Callable[[float], None] = time.sleep,
        ca_file: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(url, api_key, hints, ca_file, model)
        self._sleep = sleep
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def score(
        self,
        prompt: Prompt,
        candidates: list[str],
        deadline_ms: int | None = None,
        stages: Stages | None = None,
    ) -> list[CandidateScore]:
        """Scores in the order of `candidates`, any number of them, sent 256 and 4 MB at a time.

        Args:
            prompt: text, or messages {role, content}.
            deadline_ms: for the whole call, retries and waiting included. Candidates that have no
                score by then have None.
            stages: what candidates have to come through first; those that fall out have None.

        Raises InputError for a wrong address, key or request, EngineError when the service stays
        busy or down through all attempts or answers with something else than scores, DeadlineError
        when the time is up before any candidate has a score.
        """
        call = self._call(prompt, candidates, deadline_ms, stages)
        for part in call.parts():
            try:
                call.add(self._send(part))
            except DeadlineError as error:
                call.miss(part, error)
        return call.scores()

    def choose(
        self,
        prompt: Prompt,
        candidates: list[str],
        deadline_ms: int | None = None,
        stages: Stages | None = None,
    ) -> Choice:
        """`score`, and which one is the best."""
        return best_of(self.score(prompt, candidates, deadline_ms, stages), self._address)

    def best_of_n(
        self,
        prompt: Prompt,
        generate: Callable[[Prompt, int], list[str]],
        n: int,
        deadline_ms: int | None = None,
        stop: Stop | None = None,
        stages: Stages | None = None,
    ) -> tuple[str, Choice]:
        """The best of the `n` answers that `generate(prompt, n)` returns, and all their scores.

        With `stop` it is asked for `stop.at_once` at a time, until the rule is met or there are
        `n`; `num_saved` of the choice says how many were not needed. `deadline_ms` begins when the
        answers are there, in each round. A late round ends the drawing.

        Raises InputError if there are no answers, or the service has other weights than `stop`.
        """
        if stop is not None and stop.weights_digest is not None:
            self._require_weights(stop, self.served_model())
        drawing = Drawing(n, stop, self._address)
        while num := drawing.num_next():
            texts = answers(generate(prompt, num))
            try:
                drawing.add(texts, self.score(prompt, texts, deadline_ms, stages))
            except DeadlineError as error:
                drawing.miss(texts, error)
        return drawing.best()

    def served_model(self) -> ServedModel:
        """What the service says of the model that answers, asked once.

        Raises InputError for a wrong address or key, EngineError when it cannot be reached.
        """
        try:
            answer = self._http.get(**self._card)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        return self._served_model(answer)

    def _send(self, part: Attempts) -> list[CandidateScore]:
        while True:
            try:
                answer = self._http.post(part.address, **part.request())
            except (httpx.TransportError, httpx.InvalidURL) as error:
                part.failed(error)
            else:
                if (scores := part.answered(answer)) is not None:
                    return scores
            self._sleep(part.next_wait_s())


class AsyncRewardClient(_Common):
    """The same for an event loop: `async with`, and methods to await."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        hints: Hints = _DEFAULT_HINTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ca_file: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(url, api_key, hints, ca_file, model)
        self._sleep = sleep
        self._http = httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def score(
        self,
        prompt: Prompt,
        candidates: list[str],
        deadline_ms: int | None = None,
        stages: Stages | None = None,
    ) -> list[CandidateScore]:
        """See RewardClient.score."""
        call = self._call(prompt, candidates, deadline_ms, stages)
        parts = list(call.parts())
        # Requests that were sent at once: the first error that is no late answer is raised.
        found = await asyncio.gather(*map(self._send, parts), return_exceptions=True)
        for part, scores in zip(parts, found, strict=True):
            if isinstance(scores, DeadlineError):
                call.miss(part, scores)
            elif isinstance(scores, BaseException):
                raise scores
            else:
                call.add(scores)
        return call.scores()

    async def choose(
        self,
        prompt: Prompt,
        candidates: list[str],
        deadline_ms: int | None = None,
        stages: Stages | None = None,
    ) -> Choice:
        """`score`, and which one is the best."""
        return best_of(await self.score(prompt, candidates, deadline_ms, stages), self._address)

    async def best_of_n(
        self,
        prompt: Prompt,
        generate: Callable[[Prompt, int], Awaitable[list[str]]],
        n: int,
        deadline_ms: int | None = None,
        stop: Stop | None = None,
        stages: Stages | None = None,
    ) -> tuple[str, Choice]:
        """See RewardClient.best_of_n."""
        if stop is not None and stop.weights_digest is not None:
            self._require_weights(stop, await self.served_model())
        drawing = Drawing(n, stop, self._address)
        while num := drawing.num_next():
            texts = answers(await generate(prompt, num))
            try:
                drawing.add(texts, await self.score(prompt, texts, deadline_ms, stages))
            except DeadlineError as error:
                drawing.miss(texts, error)
        return drawing.best()

    async def served_model(self) -> ServedModel:
        """See RewardClient.served_model."""
        try:
            answer = await self._http.get(**self._card)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        return self._served_model(answer)

    async def _send(self, part: Attempts) -> list[CandidateScore]:
        while True:
            try:
                answer = await self._http.post(part.address, **part.request())
            except (httpx.TransportError, httpx.InvalidURL) as error:
                part.failed(error)
            else:
                if (scores := part.answered(answer)) is not None:
                    return scores
            await self._sleep(part.next_wait_s())
