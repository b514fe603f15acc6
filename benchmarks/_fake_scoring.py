"""A scorer without a model, for what is measured or shown about the service around it.

One token is one byte, and a reward is a function of the text alone, so that whoever scores a
request, and how often, the answer is known beforehand.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence

from codepmp_ray.errors import InputError
from codepmp_ray.preference.tokenization import Encoded, EncodedResponse, Message
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest, plan_request, rank
from codepmp_ray.scoring.protocol import Scores


def expected_reward(text: str, offset: float = 0.0) -> float:
    """What the fake gives for a candidate, in -1..1 above `offset`."""
    return _reward(_bytes(text), offset)


def _reward(ids: Sequence[int], offset: float) -> float:
    return offset + zlib.crc32(bytes(ids)) / 2**31 - 1.0


def _bytes(text: str) -> list[int]:
    return list(text.encode())


class ByteEncoder:
    """Stands in for preference.tokenization.Encoder; no library, no file."""

    def encode(self, prompt: str | Sequence[Message], responses: Sequence[str]) -> Encoded:
        if not isinstance(prompt, str):
            if prompt[0]["role"] == "tool":
                raise InputError("The chat template cannot render the messages: tool comes first.")
            prompt = "\n".join(message["content"] for message in prompt)
        return Encoded(_bytes(prompt), [_bytes(prompt) + _bytes(text) for text in responses])

    def whole_text(self, text: str) -> EncodedResponse:
        return EncodedResponse(_bytes(text), truncated=False)


class FakeScorer:
    """Takes `tokens_per_s` alone and fewer beside others, as one engine does.

    `num` counts calls that were started, finished and cancelled.
    """

    def __init__(
        self, max_model_len: int = 4096, tokens_per_s: float | None = None, offset: float = 0.0
    ) -> None:
        self.max_model_len = max_model_len
        self._tokens_per_s, self._offset = tokens_per_s, offset
        self._engine = asyncio.Lock()
        self.num: Counter[str] = Counter(started=0, finished=0, cancelled=0)

    async def score_ids(
        self, prompt_ids: list[int], responses: list[list[int]], timeout_s: float | None = None
    ) -> Scores:
        self.num["started"] += 1
        num_done = 0
        try:
            async with asyncio.timeout(timeout_s):
                for ids in responses:
                    if self._tokens_per_s is not None:
                        async with self._engine:
                            await asyncio.sleep(len(ids) / self._tokens_per_s)
                    num_done += 1
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            self.num["cancelled"] += 1
            raise
        self.num["finished"] += 1
        rewards: list[float | None] = [_reward(ids, self._offset) for ids in responses]
        rewards[num_done:] = [None] * (len(rewards) - num_done)
        return Scores(rewards)


class FakeBackend:
    """The real planning and ranking over the fake scorer, in this process."""

    def __init__(self, scorer: FakeScorer) -> None:
        self.scorer = scorer
        self._encoder = ByteEncoder()

    async def score(self, requests: list[ScoringRequest]) -> list[BestOfN]:
        return [await self._best_of_n(request) for request in requests]

    async def _best_of_n(self, request: ScoringRequest) -> BestOfN:
        encoder: object = self._encoder
        plan = plan_request(encoder, self.scorer.max_model_len, request)  # type: ignore[arg-type]
        scores = await self.scorer.score_ids(plan.prompt_ids, plan.response_ids, request.timeout_s)
        return rank(plan, scores)

    async def check_ready(self) -> None:
        pass
