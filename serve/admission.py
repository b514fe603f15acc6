"""Who may score now, who waits, who comes back later: weighed by tokens, fair between callers.

A call of 256 candidates is not one unit of work, so what is bounded is the sum of the tokens of
the calls being scored. Beyond the bound, calls wait in a queue per caller; the caller who has been
given the fewest tokens is next (start-time fair queueing), so that one caller's flood delays
nobody else. A caller whose share of the waiting room is full gets 429 with a time to come back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from codepmp_ray.errors import DeadlineError
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest, num_chars

from .errors import ApiError

_MAX_RETRY_AFTER_S = 60
_SMOOTHING = 0.05  # weight of the newest call in running means


@dataclass
class _Caller:
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)
    num_waiting_tokens: int = 0
    given: float = 0.0  # tokens, on a scale that all callers who wait have in common


class Admission:
    """The gate of one ingress replica. Methods run in one event loop.

    Args:
        max_calls: being scored at once.
        max_tokens: of the calls being scored at once; a larger call is admitted alone.
        max_waiting_tokens: of those that wait, shared by the callers who wait.
        num_replicas: how many share the work now; the three limits are for each of them.
    """

    def __init__(
        self,
        max_calls: int,
        max_tokens: int,
        max_waiting_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        num_replicas: Callable[[], int] = lambda: 1,
    ) -> None:
        self._max_calls, self._max_tokens = max_calls, max_tokens
        self._max_waiting_tokens_each, self._clock = max_waiting_tokens, clock
        self._num_replicas = num_replicas
        self._callers: dict[str, _Caller] = {}
        self._level = 0.0  # `given` of the caller served last: where newcomers begin
        self.num_running_tokens = 0
        self.num_running = 0
        self._tokens_per_s: float | None = None

    @property
    def _max_waiting_tokens(self) -> int:
        return self._max_waiting_tokens_each * self._num_replicas()

    @property
    def num_waiting_tokens(self) -> int:
        return sum(caller.num_waiting_tokens for caller in self._callers.values())

    @asynccontextmanager
    async def admit(
        self, caller: str, tokens: int, timeout_s: float | None = None
    ) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the block.

        Raises ApiError 429 when there is no room to wait, DeadlineError when it took too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._turn(caller, tokens)
        except TimeoutError:
            raise DeadlineError(
                "The call's time passed while it waited for its turn.", "Allow more time."
            ) from None
        start_s = self._clock()
        num_beside = self.num_running_tokens
        try:
            yield
        finally:
            self._account(-1, tokens)
            self._measure(num_beside, self._clock() - start_s)
            self._next()

    async def _turn(self, name: str, tokens: int) -> None:
        if not self._callers and self._fits(tokens):
            self._account(1, tokens)
            return
        caller = self._callers.get(name)
        num_callers = len(self._callers) + (caller is None)
        waiting = caller.num_waiting_tokens if caller else 0
        if waiting and waiting + tokens > self._max_waiting_tokens // num_callers:
            raise self._refusal()
        if caller is None:
            if tokens > self._max_waiting_tokens:
                raise self._refusal()
            caller = self._callers[name] = _Caller(given=self._level)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (tokens, turn)
        caller.waiting.append(entry)
        caller.num_waiting_tokens += tokens
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given at the same moment
                self._account(-1, tokens)
            else:
                self._leave(name, caller, entry)
            self._next()
            raise

    def _fits(self, tokens: int) -> bool:
        num_replicas = self._num_replicas()
        return not self.num_running or (
            self.num_running < self._max_calls * num_replicas
            and self.num_running_tokens + tokens <= self._max_tokens * num_replicas
        )

    def _account(self, sign: int, tokens: int) -> None:
        self.num_running += sign
        self.num_running_tokens += sign * tokens

    def _next(self) -> None:
        """Give turns as long as there is room. The next in turn is not overtaken by a smaller."""
        while self._callers:
            name, caller = min(self._callers.items(), key=lambda item: item[1].given)
            entry = caller.waiting[0]
            tokens, turn = entry
            if not self._fits(tokens):
                return
            self._level = caller.given
            caller.given += tokens
            self._leave(name, caller, entry)
            self._account(1, tokens)
            turn.set_result(None)

    def _leave(self, name: str, caller: _Caller, entry: tuple[int, asyncio.Future[None]]) -> None:
        caller.waiting.remove(entry)
        caller.num_waiting_tokens -= entry[0]
        if not caller.waiting:
            del self._callers[name]

    def _measure(self, num_tokens: int, seconds: float) -> None:
        """Tokens a second: what was being scored beside a call, over the call's time."""
        rate = num_tokens / max(seconds, 1e-6)
        before = self._tokens_per_s
        self._tokens_per_s = rate if before is None else before + _SMOOTHING * (rate - before)

    def _refusal(self) -> ApiError:
        ahead = self.num_running_tokens + self.num_waiting_tokens
        wait_s = math.ceil(ahead / self._tokens_per_s) if self._tokens_per_s else 1
        return ApiError(
            429,
            f"{self.num_waiting_tokens} tokens wait to be scored; your share of "
            f"max_waiting_tokens={self._max_waiting_tokens} is full.",
            retry_after_s=min(max(wait_s, 1), _MAX_RETRY_AFTER_S),
        )


class TokenEstimate:
    """How many tokens a request has, before it is tokenised: by its characters.

    The ingress holds no tokenizer. It begins with three characters a token and learns from answers.
    """

    def __init__(self, chars_per_token: float = 3.0) -> None:
        self._chars_per_token = chars_per_token

    def __call__(self, request: ScoringRequest) -> int:
        return 1 + len(request.candidates) + math.ceil(num_chars(request) / self._chars_per_token)

    def learn(self, request: ScoringRequest, result: BestOfN) -> None:
        tokens, chars = result.num_prompt_tokens + result.num_response_tokens, num_chars(request)
        if tokens and chars and not any(item.truncated for item in result.candidates):
            self._chars_per_token += _SMOOTHING * (chars / tokens - self._chars_per_token)
