"""A scorer and a backend that need no engine, and the client's side of a request."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from typing import Any

from fastapi.testclient import TestClient

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import DeadlineError, InputError, SandboxUnavailable
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.scoring.best_of_n import (
    BestOfN,
    RequestPlan,
    ScoringRequest,
    plan_request,
    rank,
)
from codepmp_ray.scoring.protocol import Scores
from codepmp_ray.serve.answer_schemas import Calibration
from codepmp_ray.serve.app import ServiceSettings
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.errors import Unavailable
from codepmp_ray.serve.scoring import Outcome
from codepmp_ray.serve.stages import StagedScoring
from codepmp_ray.serve.weights import Weights
from tests.tiny_models import tiny_tokenizer

KEY = "a-key-of-these-tests"
HEADERS = {"Authorization": f"Bearer {KEY}"}
MAX_BODY_BYTES = 100_000
NAN_LENGTH = 77
SETTINGS = ServiceSettings(
    model_name="tiny",
    api_key_sha256=(digest_of("an older key"), digest_of(KEY)),
    max_candidates=200,
    max_body_bytes=MAX_BODY_BYTES,
    max_concurrent_requests=2,
    max_waiting_bytes=0,
    calibration=Calibration(mean=2.0, std=0.5),
)


class FakeScorer:
    """Rewards by length. Special prompts make it fail or wait."""

    max_model_len = 512

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.num_waiting = 0

    async def score_ids(
        self,
        prompt_ids: list[int],
        responses: list[list[int]],
        timeout_s: float | None = None,
    ) -> Scores:
        """With a deadline only the first response has its score in time. Those of NAN_LENGTH ids
        are too much for the model.
        """
        rewards: list[float | None] = [
            math.nan if len(ids) == NAN_LENGTH else float(len(ids)) for ids in responses
        ]
        if timeout_s is not None:
            rewards[1:] = [None] * (len(rewards) - 1)
        return Scores(rewards, num_cached_prompt_tokens=3)


class FakeBackend:
    """The real planning and ranking over the fake scorer."""

    def __init__(self) -> None:
        self.scorer = FakeScorer()
        tokenizer = tiny_tokenizer()
        template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
        self.encoder = Encoder(tokenizer, template)
        self.staged = StagedScoring(SandboxConfig(num_parallel=2))
        self.is_ready = True
        self.digest: str | None = None

    async def score(self, requests: list[ScoringRequest]) -> list[Outcome]:
        return [await self.outcome(request) for request in requests]

    async def outcome(self, request: ScoringRequest) -> Outcome:
        try:
            return await self.staged.best_of_n(request, self.best_of_n)
        except (InputError, DeadlineError, SandboxUnavailable) as error:
            return error

    async def best_of_n(self, request: ScoringRequest) -> BestOfN:
        prompt = request.prompt
        if prompt == "crash":
            raise RuntimeError("secret detail of the engine")
        if prompt == "away":
            raise Unavailable
        if prompt == "wait":
            self.scorer.num_waiting += 1
            while not self.scorer.gate.is_set():
                await asyncio.sleep(0.01)
        plan = self.plan(request)
        scores = await self.scorer.score_ids(plan.prompt_ids, plan.response_ids, request.timeout_s)
        result = rank(plan, scores)
        return replace(result, weights_digest=self.digest)

    def plan(self, request: ScoringRequest) -> RequestPlan:
        return plan_request(self.encoder, self.scorer.max_model_len, request, vocab_size=300)

    async def tokenize(self, request: ScoringRequest) -> list[int]:
        plan = self.plan(request)
        return plan.prompt_ids + plan.responses[0].ids

    async def load_weights(self, weights: Weights) -> None:
        if "bad" in weights.path:
            raise InputError("The configurations differ in hidden_size.")
        self.digest = weights.digest

    async def check_ready(self) -> int | None:
        if not self.is_ready:
            raise Unavailable
        return 1_000


def bon(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/bon", json={"prompt": "p", "candidates": ["a"], **fields})


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error of a response that has the promised status and form."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def request_scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/bon",
        "raw_path": b"/v1/bon",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"x-api-key", KEY.encode()),
            (b"content-type", b"application/json"),
            *headers,
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 9000),
    }
