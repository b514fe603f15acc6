"""Who may score now, who waits, who comes back later: weighed by tokens, fair between callers.

A call of 256 candidates is not one unit of work, so what is bounded is the sum of the tokens of
the calls being scored. Beyond the bound, calls wait in a queue per caller; the caller who has been
given the fewest tokens is next (start-time fair queueing), so that one caller's flood delays
nobody else. What bounds the queue is the memory of the calls in it: trainers send a whole step at
once and do not come again when they are refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from codepmp_ray.errors import DeadlineError
from codepmp_ray.scoring.best_of_n import BestOfN, Candidate, ScoringRequest, num_chars

from .errors import ApiError

_MAX_RETRY_AFTER_S = 60
_SMOOTHING = 0.05  # weight of the newest call in running means


@dataclass(frozen=True)
class _Call:
    tokens: int
    num_bytes: int


@dataclass
class _Caller:
    waiting: OrderedDict[asyncio.Future[None], _Call] = field(default_factory=OrderedDict)
    num_waiting_tokens: int = 0
    num_waiting_bytes: int = 0
    given: float = 0.0  # tokens, on a scale that all callers who wait have in common


class Admission:
    """The gate of one ingress replica. Methods run in one event loop.

    Args:
        max_calls: being scored at once.
        max_tokens: of the calls being scored at once; a larger call is admitted alone.
        max_waiting_bytes: of those that wait, shared by the callers who wait. Who has nothing
            waiting may always wait with one call.
        num_replicas: how many share the work now; the first two limits are for each of them.
    """

    def __init__(
        self,
        max_calls: int,
        max_tokens: int,
        max_waiting_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        num_replicas: Callable[[], int] = lambda: 1,
    ) -> None:
        self._max_calls, self._max_tokens = max_calls, max_tokens
        self._max_waiting_bytes, self._clock = max_waiting_bytes, clock
        self._num_replicas = num_replicas
        self._callers: dict[str, _Caller] = {}
        self._level = 0.0  # `given` of the caller served last: where newcomers begin
        self.num_running_tokens = 0
        self.num_running = 0
        self._tokens_per_s: float | None = None

    @property
    def num_waiting_tokens(self) -> int:
        return sum(caller.num_waiting_tokens for caller in self._callers.values())

    @asynccontextmanager
    async def admit(
        self, caller: str, tokens: int, timeout_s: float | None = None, num_bytes: int = 0
    ) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the block. `num_bytes` is what a call holds meanwhile.

        Raises ApiError 429 when there is no room to wait, DeadlineError when it took too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._turn(caller, _Call(tokens, num_bytes))
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

    async def _turn(self, name: str, call: _Call) -> None:
        if not self._callers and self._fits(call.tokens):
            self._account(1, call.tokens)
            return
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = _Caller(given=self._level)
        elif call.num_bytes and caller.num_waiting_bytes + call.num_bytes > self._share:
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        caller.waiting[turn] = call
        caller.num_waiting_tokens += call.tokens
        caller.num_waiting_bytes += call.num_bytes
        try:
            await turn
        except asyncio.CancelledError:
            if turn in caller.waiting:
                self._leave(name, caller, turn)
            elif not turn.cancelled():  # it was given at the same moment
                self._account(-1, call.tokens)
            self._next()
            raise

    @property
    def _share(self) -> int:
        return self._max_waiting_bytes // len(self._callers)

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
            turn, call = next(iter(caller.waiting.items()))
            if not turn.done():  # else who waited has left, and its task has not run yet
                if not self._fits(call.tokens):
                    return
                turn.set_result(None)
                self._account(1, call.tokens)
                self._level = caller.given
                caller.given += call.tokens
            self._leave(name, caller, turn)

    def _leave(self, name: str, caller: _Caller, turn: asyncio.Future[None]) -> None:
        call = caller.waiting.pop(turn)
        caller.num_waiting_tokens -= call.tokens
        caller.num_waiting_bytes -= call.num_bytes
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
            f"max_waiting_bytes={self._max_waiting_bytes} is full.",
            retry_after_s=min(max(wait_s, 1), _MAX_RETRY_AFTER_S),
        )


class TokenEstimate:
    """How many tokens a request has, before it is tokenised: by its characters.

    The ingress holds no tokenizer. It begins with three characters a token and learns from answers.
    What will be cut or refused costs nothing: no text counts for more than `max_model_len`.
    """

    def __init__(
        self, chars_per_token: float = 3.0, max_model_len: float | None = math.inf
    ) -> None:
        self._chars_per_token, self._most = chars_per_token, max_model_len or math.inf

    def __call__(self, request: ScoringRequest) -> int:
        num_prompt = num_chars(ScoringRequest(request.prompt, []))
        tokens = min(num_prompt / self._chars_per_token, self._most)
        tokens += sum(map(self._tokens, set(request.candidates)))
        return 1 + len(request.candidates) + math.ceil(tokens)

    def _tokens(self, text: Candidate) -> float:
        num = len(text) / self._chars_per_token if isinstance(text, str) else len(text)
        return min(num, self._most)

    def learn(self, request: ScoringRequest, result: BestOfN) -> None:
        tokens, chars = result.num_prompt_tokens + result.num_response_tokens, num_chars(request)
        is_text = all(isinstance(text, str) for text in request.candidates)
        is_whole = not any(item.truncated for item in result.candidates)
        if tokens and chars and is_text and is_whole and request.stages is None:
            self._chars_per_token += _SMOOTHING * (chars / tokens - self._chars_per_token)
