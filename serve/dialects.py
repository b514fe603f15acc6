"""Other servers' scoring routes, so that their clients need no glue. One scoring path under all."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request

from codepmp_ray.errors import InputError
from codepmp_ray.preference.messages import Message
from codepmp_ray.scoring.best_of_n import BestOfN, Candidate, Cut, ScoringRequest

from .dialect_answers import (
    ClassifyAnswer,
    EmbeddingsAnswer,
    LlamaFactoryAnswer,
    PoolingAnswer,
    RerankAnswer,
    RewardAnswer,
    ScoreAnswer,
    SglangAnswer,
    TeiPrediction,
    TeiRank,
    TokenizeAnswer,
    as_vector,
    envelope,
    num_tokens_of,
    rewards_of,
    sigmoid,
)
from .dialect_schemas import (
    ClassifyBody,
    EmbeddingsRequest,
    EncodedRequest,
    LlamaFactoryRequest,
    RerankBody,
    RewardBody,
    ScoreRequest,
    SglangRequest,
    SlimeRequest,
    TeiPredictRequest,
    TeiRerankRequest,
    TokenizeRequest,
    WholeTextRequest,
    listed,
)
from .errors import ApiError
from .gate import caller_of
from .schemas import plain_messages
from .scoring import ScoringPath


def add_dialects(
    app: FastAPI,
    scoring: ScoringPath,
    responses: dict[int | str, Any],
    max_model_len: int | None = None,
    label: str = "LABEL_0",
) -> None:
    """Add the routes to `app`; `responses` documents their errors."""

    def route(path: str, answer: Any, *aliases: str) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            for other in aliases:
                app.post(other, include_in_schema=False)(function)
            return app.post(path, responses={200: {"model": answer}, **responses})(function)

        return add

    async def score_texts(
        http: Request, texts: list[Candidate], cut: Cut, param: str, prompt: Any = None
    ) -> BestOfN:
        asked = ScoringRequest(prompt, texts, cut)
        return await scoring.score(caller_of(http.scope), asked, param)

    async def score_pairs(
        http: Request, pairs: list[tuple[Any, Candidate]], cut: Cut, param: str
    ) -> tuple[list[float | None], list[BestOfN]]:
        """Rewards in the order of `pairs`, each prompt computed once."""
        places: dict[Any, list[int]] = {}
        for index, (prompt, _) in enumerate(pairs):
            places.setdefault(prompt, []).append(index)
        asked = [
            ScoringRequest(prompt, [pairs[index][1] for index in indices], cut, places=indices)
            for prompt, indices in places.items()
        ]
        results = await scoring.score_all(caller_of(http.scope), asked, param)
        found: list[float | None] = [None] * len(pairs)
        for indices, result in zip(places.values(), results, strict=True):
            for index, reward in zip(indices, rewards_of(result), strict=True):
                found[index] = reward
        return found, results

    async def answered(http: Request, request: WholeTextRequest) -> BestOfN:
        scoring.require_model(request.model)
        cut = request.cut(scoring.cut)
        if request.input is not None:
            return await score_texts(http, listed(request.input), cut, "input")
        prompt, response = split_answer(plain_messages(request.messages or []))
        return await score_texts(http, [response], cut, "messages", prompt)

    @route("/classify", ClassifyAnswer | SglangAnswer | list[SglangAnswer], "/v1/classify")
    async def classify(request: ClassifyBody, http: Request) -> Any:
        """vLLM's route, and SGLang's where the body has `text` or `input_ids`."""
        if isinstance(request, SglangRequest):
            scoring.require_model(request.model)
            param = "input_ids" if request.text is None else "text"
            texts = listed(request.input_ids if request.text is None else request.text)
            result = await score_texts(http, texts, request.cut(scoring.cut), param)
            found = [
                {"embedding": [item.score], "meta_info": {"prompt_tokens": item.num_tokens}}
                for item in result.candidates
            ]
            return found[0] if request.is_one else found
        result = await answered(http, request)
        rows = [
            {"index": index, "label": label, "probs": [request.shown(reward)], "num_classes": 1}
            for index, reward in enumerate(rewards_of(result))
        ]
        return envelope("classify", scoring.model_name, rows, [result])

    @route("/pooling", PoolingAnswer)
    async def pooling(request: EncodedRequest, http: Request) -> Any:
        """vLLM's route: the reward of each text as its pooled vector."""
        result = await answered(http, request)
        rows = [
            {
                "index": index,
                "object": "pooling",
                "data": as_vector(request.shown(reward), request.encoding_format),
            }
            for index, reward in enumerate(rewards_of(result))
        ]
        return envelope("pool", scoring.model_name, rows, [result])

    @route("/v1/embeddings", EmbeddingsAnswer)
    async def embeddings(request: EmbeddingsRequest, http: Request) -> Any:
        """SGLang's route for reward models: the reward of each text as its embedding."""
        scoring.require_model(request.model)
        cut = request.cut(scoring.cut)
        result = await score_texts(http, listed(request.input), cut, "input")
        rows = [
            {
                "index": index,
                "object": "embedding",
                "embedding": as_vector(reward, request.encoding_format),
            }
            for index, reward in enumerate(rewards_of(result))
        ]
        return envelope("embd", scoring.model_name, rows, [result])

    @route("/score", ScoreAnswer, "/v1/score")
    async def score(request: ScoreRequest, http: Request) -> Any:
        """vLLM's route: text_1 as the prompt, text_2 as responses to it. vLLM itself puts no
        template around them.
        """
        scoring.require_model(request.model)
        try:
            pairs = request.pairs()
        except ValueError as error:
            raise ApiError(422, str(error), param="text_1") from error
        found, results = await score_pairs(http, [*pairs], request.cut(scoring.cut), "text_2")
        rows = [
            {"index": index, "object": "score", "score": request.shown(reward)}
            for index, reward in enumerate(found)
        ]
        return envelope("score", scoring.model_name, rows, results)

    @route("/rerank", RerankAnswer | list[TeiRank], "/v1/rerank", "/v2/rerank")
    async def rerank(request: RerankBody, http: Request) -> Any:
        """Cohere's, Jina's, vLLM's and infinity's route, and TEI's where the body has `texts`: the
        query as the prompt, documents as responses. Documents are returned when asked for.
        """
        scoring.require_model(request.model)
        cut = request.cut(scoring.cut)
        if isinstance(request, TeiRerankRequest):
            result = await score_texts(http, [*request.texts], cut, "texts", request.query)
            return [
                {"index": item.index, "score": tei_score(item.score, request.raw_scores)}
                | ({"text": request.texts[item.index]} if request.return_text else {})
                for item in by_rank(result, request.top_n)
            ]
        texts = request.texts()
        result = await score_texts(http, [*texts], cut, "documents", request.query)
        results = [
            {"index": item.index, "relevance_score": request.shown(item.score)}
            | ({"document": {"text": texts[item.index]}} if request.return_documents else {})
            for item in by_rank(result, request.top_n)
        ]
        num_tokens = num_tokens_of([result])
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": scoring.model_name,
            "results": results,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
            "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": num_tokens}},
        }

    @route("/predict", list[TeiPrediction] | list[list[TeiPrediction]])
    async def predict(request: TeiPredictRequest, http: Request) -> Any:
        """TEI's route for classifiers."""
        scoring.require_model(request.model)
        cut = request.cut(scoring.cut)
        found, _ = await score_pairs(http, [*request.rows()], cut, "inputs")
        rows = [[{"score": tei_score(r, request.raw_scores), "label": label}] for r in found]
        is_batch = isinstance(request.inputs, list) and isinstance(request.inputs[0], list)
        return rows if is_batch else rows[0]

    @route("/get_reward", RewardAnswer | float)
    async def get_reward(request: RewardBody, http: Request) -> Any:
        """OpenRLHF's remote reward model, and slime's where the body has `response`."""
        scoring.require_model(request.model)
        cut = request.cut(scoring.cut)
        if isinstance(request, SlimeRequest):
            if isinstance(request.prompt, str):
                texts: list[Candidate] = [request.prompt + request.response]
                result = await score_texts(http, texts, cut, "response")
            else:
                prompt = plain_messages(request.prompt)
                result = await score_texts(http, [request.response], cut, "response", prompt)
            return rewards_of(result)[0]
        result = await score_texts(http, listed(request.query), cut, "query")
        rewards = rewards_of(result)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    @route("/v1/score/evaluation", LlamaFactoryAnswer)
    async def evaluation(request: LlamaFactoryRequest, http: Request) -> Any:
        """LLaMA-Factory's route of its reward models."""
        scoring.require_model(request.model)
        cut = request.cut(scoring.cut)
        result = await score_texts(http, [*request.messages], cut, "messages")
        return {
            "id": f"scoreeval-{uuid.uuid4().hex}",
            "object": "score.evaluation",
            "model": scoring.model_name,
            "scores": rewards_of(result),
        }

    @route("/tokenize", TokenizeAnswer)
    async def tokenize(request: TokenizeRequest, http: Request) -> Any:
        """vLLM's route: the ids as they would be scored, EOS included where the model has it."""
        scoring.require_model(request.model)
        if request.prompt is not None:
            asked = ScoringRequest(None, [request.prompt])
        else:
            messages = plain_messages(request.messages or [])
            ends = messages[-1]["role"] == "assistant"
            if request.add_generation_prompt is ends:
                raise ApiError(
                    422,
                    f"add_generation_prompt={ends} does not go with messages that end with the "
                    f"turn of {messages[-1]['role']!r}",
                    param="add_generation_prompt",
                )
            asked = ScoringRequest(messages, [""])
            if ends:
                prompt, response = split_answer(messages)
                asked = ScoringRequest(prompt, [response])
        ids = await scoring.tokenize(caller_of(http.scope), asked)
        return {"count": len(ids), "max_model_len": max_model_len, "tokens": ids}


def split_answer(messages: list[Message]) -> tuple[list[Message], str]:
    """(what comes before the last message, its text). Raises InputError for a last message that
    has more than text.
    """
    *prompt, response = messages
    if extra := sorted(response.keys() - {"role", "content"}):
        raise InputError(f"The last message has {extra[0]}: a reward is read after its text.")
    return prompt, response["content"]


def by_rank(result: BestOfN, top_n: int | None) -> list[Any]:
    """The best first, those without a score last."""
    ordered = sorted(result.candidates, key=lambda item: item.rank or len(result.candidates) + 1)
    return ordered[: top_n or None]


def tei_score(reward: float | None, is_raw: bool | None) -> float | None:
    return reward if is_raw or reward is None else sigmoid(reward)
