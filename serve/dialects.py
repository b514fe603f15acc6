"""Other servers' scoring routes, so that their clients need no glue. One scoring path under all."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import FastAPI, Request

from codepmp_ray.errors import InputError
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest

from .dialect_answers import (
    ClassifyAnswer,
    PoolingAnswer,
    RerankAnswer,
    RewardAnswer,
    ScoreAnswer,
    SglangAnswer,
)
from .dialect_schemas import (
    OpenRLHFRequest,
    RerankRequest,
    ScoreRequest,
    SglangRequest,
    WholeTextRequest,
    envelope,
    listed,
    num_tokens_of,
    rewards_of,
)
from .errors import ApiError
from .gate import caller_of
from .schemas import plain_messages
from .scoring import ScoringPath


def add_dialects(app: FastAPI, scoring: ScoringPath, responses: dict[int | str, Any]) -> None:
    """Add the routes to `app`; `responses` documents their errors."""

    def answers(model: Any) -> dict[int | str, Any]:
        return {200: {"model": model}, **responses}

    async def whole_texts(http: Request, texts: list[str], param: str) -> BestOfN:
        return await scoring.score(caller_of(http.scope), ScoringRequest(None, texts), param)

    async def answered(http: Request, request: WholeTextRequest) -> BestOfN:
        scoring.require_model(request.model)
        if request.input is not None:
            return await whole_texts(http, listed(request.input), "input")
        *prompt, response = plain_messages(request.messages or [])
        if extra := sorted(response.keys() - {"role", "content"}):
            raise InputError(f"The last message has {extra[0]}: a reward is read after its text.")
        asked = ScoringRequest(prompt, [response["content"]], truncate=False)
        return await scoring.score(caller_of(http.scope), asked, "messages")

    @app.post("/classify", responses=answers(ClassifyAnswer | SglangAnswer | list[SglangAnswer]))
    @app.post("/v1/classify", include_in_schema=False)
    async def classify(request: WholeTextRequest | SglangRequest, http: Request) -> Any:
        """vLLM's route, and SGLang's where the body has `text`."""
        if isinstance(request, SglangRequest):
            scoring.require_model(request.model)
            result = await whole_texts(http, listed(request.text), "text")
            found = [
                {"embedding": [item.score], "meta_info": {"prompt_tokens": item.num_tokens}}
                for item in result.candidates
            ]
            return found[0] if isinstance(request.text, str) else found
        result = await answered(http, request)
        rows = [
            {
                "index": index,
                "label": "LABEL_0",
                "probs": [request.shown(reward)],
                "num_classes": 1,
            }
            for index, reward in enumerate(rewards_of(result))
        ]
        return envelope("classify", scoring.model_name, rows, [result])

    @app.post("/pooling", responses=answers(PoolingAnswer))
    async def pooling(request: WholeTextRequest, http: Request) -> Any:
        """vLLM's route: the reward of each text as its pooled vector."""
        result = await answered(http, request)
        rows = [
            {"index": index, "object": "pooling", "data": [request.shown(reward)]}
            for index, reward in enumerate(rewards_of(result))
        ]
        return envelope("pool", scoring.model_name, rows, [result])

    @app.post("/score", responses=answers(ScoreAnswer))
    @app.post("/v1/score", include_in_schema=False)
    async def score(request: ScoreRequest, http: Request) -> Any:
        """vLLM's route: text_1 as the prompt, text_2 as responses to it."""
        scoring.require_model(request.model)
        try:
            pairs = request.pairs()
        except ValueError as error:
            raise ApiError(422, str(error), param="text_1") from error
        places: dict[str, list[int]] = {}
        for index, (prompt, _) in enumerate(pairs):
            places.setdefault(prompt, []).append(index)
        asked = [
            ScoringRequest(prompt, [pairs[index][1] for index in indices], truncate=False)
            for prompt, indices in places.items()
        ]
        results = await scoring.score_all(caller_of(http.scope), asked, "text_2")
        shown = [0.0] * len(pairs)
        for indices, result in zip(places.values(), results, strict=True):
            for index, reward in zip(indices, rewards_of(result), strict=True):
                shown[index] = request.shown(reward)
        rows = [
            {"index": index, "object": "score", "score": value} for index, value in enumerate(shown)
        ]
        return envelope("score", scoring.model_name, rows, results)

    @app.post("/rerank", responses=answers(RerankAnswer))
    @app.post("/v1/rerank", include_in_schema=False)
    @app.post("/v2/rerank", include_in_schema=False)
    async def rerank(request: RerankRequest, http: Request) -> Any:
        """Cohere's, Jina's and vLLM's route: the query as the prompt, documents as responses."""
        scoring.require_model(request.model)
        texts = request.texts()
        asked = ScoringRequest(request.query, texts, truncate=False)
        result = await scoring.score(caller_of(http.scope), asked, "documents")
        ordered = sorted(result.candidates, key=lambda item: item.rank or 0)
        with_documents = request.return_documents is not False
        results = [
            {"index": item.index, "relevance_score": request.shown(item.score or 0.0)}
            | ({"document": {"text": texts[item.index]}} if with_documents else {})
            for item in ordered[: request.top_n or None]
        ]
        num_tokens = num_tokens_of([result])
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": scoring.model_name,
            "results": results,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
            "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": num_tokens}},
        }

    @app.post("/get_reward", responses=answers(RewardAnswer))
    async def get_reward(request: OpenRLHFRequest, http: Request) -> Any:
        """OpenRLHF's remote reward model."""
        scoring.require_model(request.model)
        result = await whole_texts(http, listed(request.query), "query")
        rewards = rewards_of(result)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}
