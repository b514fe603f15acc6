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
from .models import Models
from .schemas import MAX_CANDIDATES, plain_messages


def add_dialects(
    app: FastAPI,
    models: Models,
    responses: dict[int | str, Any],
) -> None:
    """Add the routes to `app`; `responses` documents their errors."""

    def route(path: str, answer: Any, *aliases: str) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            for other in aliases:
                app.post(other, include_in_schema=False)(function)
            return app.post(path, responses={200: {"model": answer}, **responses})(function)

        return add

    async def score_pairs(
        http: Request, request: Any, pairs: list[tuple[Any, Candidate]], param: str
    ) -> tuple[list[ScoredCandidate], list[BestOfN]]:
        """(what became of each pair of prompt and text, of what is computed): a prompt once for
        every MAX_CANDIDATES texts.
        """
        scoring = models.of(request.model)
        by_prompt: dict[str | None, list[int]] = {}
        for place, (prompt, _) in enumerate(pairs):  # messages are those of all pairs
            by_prompt.setdefault(prompt if isinstance(prompt, str) else None, []).append(place)
        groups = [
            places[start : start + MAX_CANDIDATES]
            for places in by_prompt.values()
            for start in range(0, len(places), MAX_CANDIDATES)
        ]
        cut = request.cut(scoring.cut)
        asked = [
            ScoringRequest(pairs[group[0]][0], [pairs[p][1] for p in group], cut, places=group)
            for group in groups
        ]
        results = await scoring.score_all(caller_of(http.scope), asked, param)
        found = {
            place: item
            for group, result in zip(groups, results, strict=True)
            for place, item in zip(group, result.candidates, strict=True)
        }
        return [found[place] for place in range(len(pairs))], results

    async def score_texts(
        http: Request, request: Any, texts: list[Any], param: str, prompt: Any = None
    ) -> tuple[list[ScoredCandidate], list[BestOfN]]:
        """Texts or ids after one prompt, or with theirs inside."""
        pairs = [(prompt, text) for text in candidates_of(texts)]
        return await score_pairs(http, request, pairs, param)

    async def answered(
        http: Request, request: WholeTextRequest
    ) -> tuple[list[Score], list[BestOfN]]:
        if request.input is not None:
            found, results = await score_texts(http, request, request.input, "input")
        else:
            prompt, response = split_answer(plain_messages(request.messages or []))
            found, results = await score_texts(http, request, [response], "messages", prompt)
        return [request.shown(item.score) for item in found], results

    @route("/classify", ClassifyAnswer | SglangAnswer | list[SglangAnswer], "/v1/classify")
    async def classify(request: ClassifyBody, http: Request) -> Any:
        """vLLM's route, and SGLang's where the body has `text` or `input_ids`."""
        if isinstance(request, SglangRequest):
            items, is_one = request.items()
            param = "input_ids" if request.text is None else "text"
            found, _ = await score_texts(http, request, items, param)
            rows = [
                {
                    "embedding": [request.shown(item.score)],
                    "meta_info": {"prompt_tokens": item.num_tokens},
                }
                for item in found
            ]
            return rows[0] if is_one else rows
        shown, results = await answered(http, request)
        label = models.of(request.model).facts.label
        rows = [{"label": label, "probs": [reward], "num_classes": 1} for reward in shown]
        return envelope("classify", models.of(request.model).model_name, rows, results)

    @route("/pooling", PoolingAnswer)
    async def pooling(request: VectorRequest, http: Request) -> Any:
        """vLLM's route: the reward of each text as its pooled vector."""
        shown, results = await answered(http, request)
        vectors = [as_vector(reward, request.encoding_format) for reward in shown]
        rows = [{"object": "pooling", "data": vector} for vector in vectors]
        return envelope("pool", models.of(request.model).model_name, rows, results)

    @route("/v1/embeddings", EmbeddingsAnswer)
    async def embeddings(request: VectorRequest, http: Request) -> Any:
        """SGLang's route for reward models: the reward of each text as its embedding."""
        shown, results = await answered(http, request)
        vectors = [as_vector(reward, request.encoding_format) for reward in shown]
        rows = [{"object": "embedding", "embedding": vector} for vector in vectors]
        return envelope("embd", models.of(request.model).model_name, rows, results)

    @route("/score", ScoreAnswer, "/v1/score")
    async def score(request: ScoreRequest, http: Request) -> Any:
        """vLLM's route: text_1 as the prompt, text_2 as responses to it. vLLM itself puts no
        template around them.
        """
        found, results = await score_pairs(http, request, request.pairs(), "text_2")
        rows = [{"object": "score", "score": request.shown(item.score)} for item in found]
        return envelope("score", models.of(request.model).model_name, rows, results)

    @route("/rerank", RerankAnswer | list[TeiRank], "/v1/rerank", "/v2/rerank")
    async def rerank(request: RerankBody, http: Request) -> Any:
        """Cohere's, Jina's, vLLM's and infinity's route, and TEI's where the body has `texts`: the
        query as the prompt, documents as responses. Documents are returned when asked for.
        """
        if isinstance(request, TeiRerankRequest):
            texts, query = request.texts, request.query
            found, _ = await score_texts(http, request, [*texts], "texts", query)
            return [
                {"index": index, "score": request.shown(score)}
                | ({"text": texts[index]} if request.return_text else {})
                for index, score in by_score(found, request.top_n)
            ]
        texts = request.documents
        found, computed = await score_texts(http, request, [*texts], "documents", request.query)
        results = [
            {"index": index, "relevance_score": request.shown(score)}
            | ({"document": {"text": texts[index]}} if request.return_documents else {})
            for index, score in by_score(found, request.top_n)
        ]
        num_tokens = num_tokens_of(computed)
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": models.of(request.model).model_name,
            "results": results,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
            "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": num_tokens}},
        }

    @route("/predict", list[TeiPrediction] | list[list[TeiPrediction]])
    async def predict(request: TeiPredictRequest, http: Request) -> Any:
        """TEI's route for classifiers."""
        pairs, is_batch = request.rows()
        found, _ = await score_pairs(http, request, pairs, "inputs")
        scores = [request.shown(item.score) for item in found]
        label = models.of(request.model).facts.label
        rows = [[{"score": score, "label": label}] for score in scores]
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
            found, _ = await score_texts(http, request, [text], "response", prompt)
            return request.shown(found[0].score)
        found, _ = await score_texts(http, request, [*request.query], "query")
        rewards = [request.shown(item.score) for item in found]
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    @route("/v1/score/evaluation", LlamaFactoryAnswer)
    async def evaluation(request: LlamaFactoryRequest, http: Request) -> Any:
        """LLaMA-Factory's route of its reward models."""
        found, _ = await score_texts(http, request, [*request.messages], "messages")
        return {
            "id": f"scoreeval-{uuid.uuid4().hex}",
            "object": "score.evaluation",
            "model": models.of(request.model).model_name,
            "scores": [request.shown(item.score) for item in found],
        }

    @route("/tokenize", TokenizeAnswer)
    async def tokenize(request: TokenizeRequest, http: Request) -> Any:
        """vLLM's route: the ids as they would be scored, EOS included where the model has it."""
        model = models.of(request.model)
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
        ids = await model.tokenize(caller_of(http.scope), asked)
        return {"count": len(ids), "max_model_len": model.facts.max_model_len, "tokens": ids}


def split_answer(messages: list[Message]) -> tuple[list[Message], str]:
    """(what comes before the last message, its text). Raises InputError for a last message that
    has more than text.
    """
    *prompt, response = messages
    if extra := sorted(response.keys() - {"role", "content"}):
        raise InputError(f"The last message has {extra[0]}: a reward is read after its text.")
    return prompt, response["content"]


def by_score(found: list[ScoredCandidate], top_n: int | None) -> list[tuple[int, Score]]:
    """(place, score), the best first, of equal ones the first, those without a score last."""
    scores = [item.score for item in found]
    ordered = sorted(enumerate(scores), key=lambda item: (item[1] is None, -(item[1] or 0.0)))
    return ordered[: top_n or None]
