"""Other servers' scoring routes, so that their clients need no glue. One scoring path under all."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request

from codepmp_ray.errors import InputError
from codepmp_ray.preference.messages import Message
from codepmp_ray.scoring.best_of_n import BestOfN, Candidate, ScoredCandidate, ScoringRequest

from .dialect_answers import (
    ClassifyAnswer,
    EmbeddingsAnswer,
    LlamaFactoryAnswer,
    PoolingAnswer,
    RerankAnswer,
    RewardAnswer,
    Score,
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
    LlamaFactoryRequest,
    RerankBody,
    RewardBody,
    ScoreRequest,
    SglangRequest,
    SlimeRequest,
    TeiPredictRequest,
    TeiRerankRequest,
    TokenizeRequest,
    VectorRequest,
    WholeTextRequest,
    candidates_of,
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
        http: Request, request: Any, texts: list[Any], param: str, prompt: Any = None
    ) -> BestOfN:
        scoring.require_model(request.model)
        asked = ScoringRequest(prompt, candidates_of(texts), request.cut(scoring.cut))
        return await scoring.score(caller_of(http.scope), asked, param)

    async def score_pairs(
        http: Request, request: Any, pairs: list[tuple[str | None, Candidate]], param: str
    ) -> tuple[list[Score], list[BestOfN]]:
        """Rewards in the order of `pairs`, each prompt computed once."""
        scoring.require_model(request.model)
        places: dict[str | None, list[int]] = {}
        for index, (prompt, _) in enumerate(pairs):
            places.setdefault(prompt, []).append(index)
        cut = request.cut(scoring.cut)
        asked = [
            ScoringRequest(prompt, [pairs[index][1] for index in indices], cut, places=indices)
            for prompt, indices in places.items()
        ]
        results = await scoring.score_all(caller_of(http.scope), asked, param)
        found = {
            index: reward
            for indices, result in zip(places.values(), results, strict=True)
            for index, reward in zip(indices, rewards_of(result), strict=True)
        }
        return [found[index] for index in range(len(pairs))], results

    async def answered(http: Request, request: WholeTextRequest) -> tuple[list[Score], BestOfN]:
        if request.input is not None:
            result = await score_texts(http, request, request.input, "input")
        else:
            prompt, response = split_answer(plain_messages(request.messages or []))
            result = await score_texts(http, request, [response], "messages", prompt)
        return [request.shown(reward) for reward in rewards_of(result)], result

    @route("/classify", ClassifyAnswer | SglangAnswer | list[SglangAnswer], "/v1/classify")
    async def classify(request: ClassifyBody, http: Request) -> Any:
        """vLLM's route, and SGLang's where the body has `text` or `input_ids`."""
        if isinstance(request, SglangRequest):
            items, is_one = request.items()
            param = "input_ids" if request.text is None else "text"
            found = [
                {"embedding": [item.score], "meta_info": {"prompt_tokens": item.num_tokens}}
                for item in (await score_texts(http, request, items, param)).candidates
            ]
            return found[0] if is_one else found
        shown, result = await answered(http, request)
        rows = [{"label": label, "probs": [reward], "num_classes": 1} for reward in shown]
        return envelope("classify", scoring.model_name, rows, [result])

    @route("/pooling", PoolingAnswer)
    async def pooling(request: VectorRequest, http: Request) -> Any:
        """vLLM's route: the reward of each text as its pooled vector."""
        shown, result = await answered(http, request)
        vectors = [as_vector(reward, request.encoding_format) for reward in shown]
        rows = [{"object": "pooling", "data": vector} for vector in vectors]
        return envelope("pool", scoring.model_name, rows, [result])

    @route("/v1/embeddings", EmbeddingsAnswer)
    async def embeddings(request: VectorRequest, http: Request) -> Any:
        """SGLang's route for reward models: the reward of each text as its embedding."""
        shown, result = await answered(http, request)
        vectors = [as_vector(reward, request.encoding_format) for reward in shown]
        rows = [{"object": "embedding", "embedding": vector} for vector in vectors]
        return envelope("embd", scoring.model_name, rows, [result])

    @route("/score", ScoreAnswer, "/v1/score")
    async def score(request: ScoreRequest, http: Request) -> Any:
        """vLLM's route: text_1 as the prompt, text_2 as responses to it. vLLM itself puts no
        template around them.
        """
        found, results = await score_pairs(http, request, request.pairs(), "text_2")
        rows = [{"object": "score", "score": request.shown(reward)} for reward in found]
        return envelope("score", scoring.model_name, rows, results)

    @route("/rerank", RerankAnswer | list[TeiRank], "/v1/rerank", "/v2/rerank")
    async def rerank(request: RerankBody, http: Request) -> Any:
        """Cohere's, Jina's, vLLM's and infinity's route, and TEI's where the body has `texts`: the
        query as the prompt, documents as responses. Documents are returned when asked for.
        """
        if isinstance(request, TeiRerankRequest):
            texts, query = request.texts, request.query
            result = await score_texts(http, request, [*texts], "texts", query)
            return [
                {"index": item.index, "score": tei_score(item.score, request.raw_scores)}
                | ({"text": texts[item.index]} if request.return_text else {})
                for item in by_rank(result, request.top_n)
            ]
        texts = request.documents
        result = await score_texts(http, request, [*texts], "documents", request.query)
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
        pairs, is_batch = request.rows()
        found, _ = await score_pairs(http, request, pairs, "inputs")
        rows = [[{"score": tei_score(r, request.raw_scores), "label": label}] for r in found]
        return rows if is_batch else rows[0]

    @route("/get_reward", RewardAnswer | float)
    async def get_reward(request: RewardBody, http: Request) -> Any:
        """OpenRLHF's remote reward model, and slime's where the body has `response`."""
        if isinstance(request, SlimeRequest):
            prompt, text = None, request.response
            if isinstance(request.prompt, str):
                text = request.prompt + text
            else:
                prompt = plain_messages(request.prompt)
            return rewards_of(await score_texts(http, request, [text], "response", prompt))[0]
        rewards = rewards_of(await score_texts(http, request, [*request.query], "query"))
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    @route("/v1/score/evaluation", LlamaFactoryAnswer)
    async def evaluation(request: LlamaFactoryRequest, http: Request) -> Any:
        """LLaMA-Factory's route of its reward models."""
        result = await score_texts(http, request, [*request.messages], "messages")
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
        asked = ScoringRequest(None, [request.prompt or ""])
        if request.messages is not None:
            messages = plain_messages(request.messages)
            has_answer = messages[-1]["role"] == "assistant"
            if request.add_generation_prompt is has_answer:
                raise ApiError(
                    422,
                    f"add_generation_prompt={has_answer} does not go with messages that end with "
                    f"the turn of {messages[-1]['role']!r}",
                    param="add_generation_prompt",
                )
            prompt, response = split_answer(messages) if has_answer else (messages, "")
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


def by_rank(result: BestOfN, top_n: int | None) -> list[ScoredCandidate]:
    """The best first, those without a score last."""
    ordered = sorted(result.candidates, key=lambda item: item.rank or len(result.candidates) + 1)
    return ordered[: top_n or None]


def tei_score(reward: Score, is_raw: bool | None) -> Score:
    return reward if is_raw or reward is None else sigmoid(reward)
