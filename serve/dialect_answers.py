"""What the dialects' routes answer: models for the OpenAPI schema, and what they are made of. The
answers themselves are plain dictionaries: validating 256 rows once more would cost more than
making them. A score is null where the model gave no finite number.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, create_model

from codepmp_ray.scoring.best_of_n import BestOfN

Score = float | None
Vector = list[Score] | str  # of one; text is base64

_Usage = create_model("ListUsage", prompt_tokens=int, total_tokens=int, completion_tokens=int)


def _rows(name: str, **fields: Any) -> type[BaseModel]:
    """vLLM's list answer with rows of `fields`."""
    row = create_model(f"{name}Row", index=int, **fields)
    kinds: dict[str, Any] = {"id": str, "object": Literal["list"], "created": int, "model": str}
    return create_model(f"{name}Answer", **kinds, data=list[row], usage=_Usage)


ClassifyAnswer = _rows("Classify", label=str, probs=list[Score], num_classes=int)
PoolingAnswer = _rows("Pooling", object=Literal["pooling"], data=Vector)
EmbeddingsAnswer = _rows("Embeddings", object=Literal["embedding"], embedding=Vector)
ScoreAnswer = _rows("Score", object=Literal["score"], score=Score)
SglangAnswer = create_model(
    "SglangAnswer",
    embedding=list[Score],
    meta_info=create_model("SglangMeta", prompt_tokens=int),
)
_Document = create_model("RerankDocument", text=str)
_RerankRow = create_model(
    "RerankRow", index=int, relevance_score=Score, document=(_Document, _Document(text=""))
)
RerankAnswer = create_model(
    "RerankAnswer",
    id=str,
    model=str,
    results=list[_RerankRow],
    usage=create_model("RerankUsage", prompt_tokens=int, total_tokens=int),
    meta=dict[str, Any],
)
TeiRank = create_model("TeiRank", index=int, score=Score, text=(str, ""))
TeiPrediction = create_model("TeiPrediction", score=Score, label=str)
RewardAnswer = create_model(
    "RewardAnswer", rewards=list[Score], scores=list[Score], extra_logs=dict[str, Any]
)
LlamaFactoryAnswer = create_model(
    "LlamaFactoryAnswer",
    id=str,
    object=Literal["score.evaluation"],
    model=str,
    scores=list[Score],
)
TokenizeAnswer = create_model(
    "TokenizeAnswer", count=int, max_model_len=int | None, tokens=list[int]
)


def sigmoid(value: float) -> float:
    """Without overflow for any finite value."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def as_vector(reward: float | None, encoding: str | None) -> list[float | None] | str:
    """A vector of one, as base64 of its float32 where that was asked for."""
    if encoding != "base64" or reward is None:
        return [reward]
    return base64.b64encode(struct.pack("<f", reward)).decode()


def envelope(
    kind: str, model: str, rows: list[dict[str, Any]], results: list[BestOfN]
) -> dict[str, Any]:
    """vLLM's list answer; rows get their index."""
    num_tokens = num_tokens_of(results)
    num_cached = sum(result.num_cached_prompt_tokens for result in results)
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": index, **row} for index, row in enumerate(rows)],
        "usage": {
            "prompt_tokens": num_tokens,
            "total_tokens": num_tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": num_cached},
        },
    }


def num_tokens_of(results: list[BestOfN]) -> int:
    """Of the prompts once and of the distinct texts."""
    return sum(result.num_prompt_tokens + result.num_response_tokens for result in results)
