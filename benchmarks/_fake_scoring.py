"""A scorer without a model, for what is measured or shown about the service around it.

One token is one byte, and a reward is a function of the text alone, so that whoever scores a
request, and how often, the answer is known beforehand.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codepmp_ray.errors import DeadlineError, InputError
from codepmp_ray.preference.tokenization import Encoded, EncodedResponse, Message
from codepmp_ray.scoring.best_of_n import (
    BestOfN,
    RequestPlan,
    ScoringRequest,
    plan_request,
    rank,
)
from codepmp_ray.scoring.protocol import Scores


def expected_reward(text: str, offset: float = 0.0) -> float:
    """What the fake gives for a candidate, in -1..1 above `offset`."""
    return _reward(_bytes(text), offset)


def _reward(ids: Sequence[int], offset: float) -> float:
    return offset + zlib.crc32(bytes(i % 256 for i in ids)) / 2**31 - 1.0


def _bytes(text: str) -> list[int]:
    return list(text.encode())


class ByteEncoder:
    """Stands in for preference.tokenization.Encoder; no library, no file."""

    def render(self, prompt: str | Sequence[Message]) -> str:
        if isinstance(prompt, str):
            return prompt
        if prompt[0]["role"] == "tool":
            raise InputError("The chat template cannot render the messages: tool comes first.")
        return "\n".join(message["content"] for message in prompt)

    def encode_rendered(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[Encoded]:
        return [
            Encoded(_bytes(prompt), [_bytes(prompt) + _bytes(text) for text in responses])
            for prompt, responses in requests
        ]

    def copy(self) -> ByteEncoder:
        return self

    def whole_text(self, text: str) -> EncodedResponse:
        return EncodedResponse(_bytes(text), truncated=False)


class FakeScorer:
    """Other weights are another offset, read from the folder of `_fake_replica.write_fake_model`.

    Takes `tokens_per_s` alone and fewer beside others, as one engine does.

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

    def stage_weights(self, folder: str) -> Any:
        return json.loads((Path(folder) / "config.json").read_text())["offset"]

    async def take_weights(self, staged: Any) -> None:
        self._offset = staged


class FakeBackend:
    """The real planning and ranking over the fake scorer, in this process."""

    def __init__(self, scorer: FakeScorer) -> None:
        self.scorer = scorer
        self._encoder = ByteEncoder()

    async def score(self, requests: list[ScoringRequest]) -> list[Any]:
        return [await self._outcome(request) for request in requests]

    async def _outcome(self, request: ScoringRequest) -> BestOfN | InputError | DeadlineError:
        try:
            plan = self._plan(request)
        except InputError as error:
            return error
        scores = await self.scorer.score_ids(plan.prompt_ids, plan.response_ids, request.timeout_s)
        return rank(plan, scores)

    async def tokenize(self, request: ScoringRequest) -> list[int]:
        plan = self._plan(request)
        return plan.prompt_ids + plan.responses[0].ids

    def _plan(self, request: ScoringRequest) -> RequestPlan:
        encoder: Any = self._encoder
        return plan_request(encoder, self.scorer.max_model_len, request, vocab_size=256)

    async def load_weights(self, weights: object) -> None:
        pass

    async def check_ready(self) -> None:
        pass
