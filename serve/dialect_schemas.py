"""Requests and answers of other servers' scoring routes: vLLM, Cohere and Jina, OpenRLHF, SGLang.

Unknown fields are ignored, as those servers do; fields that would change scores and are not
implemented here are refused. Scores are raw rewards unless `use_activation` asks for a sigmoid:
vLLM's own default is the sigmoid.
"""

from __future__ import annotations

import math
import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from codepmp_ray.scoring.best_of_n import BestOfN

from .schemas import MAX_CANDIDATES, MAX_MESSAGES, ChatMessage, Text

# Bounded here too: each wrong item of a list is a problem of its own.
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_CANDIDATES)]

_CONVERSATION = Field(min_length=2, max_length=MAX_MESSAGES)


class _Dialect(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    model: Text | None = None


class _Scored(_Dialect):
    """What vLLM's routes have in common."""

    use_activation: bool | None = Field(
        None,
        validation_alias=AliasChoices("use_activation", "activation"),
        description="True: sigmoid of the reward. Otherwise the raw reward.",
    )
    truncate_prompt_tokens: None = Field(None, description="Not supported: texts are never cut.")
    max_tokens_per_doc: Literal[0] | None = Field(None, description="Not supported.")
    max_tokens_per_query: Literal[0] | None = Field(None, description="Not supported.")

    def shown(self, reward: float) -> float:
        return sigmoid(reward) if self.use_activation else reward


class WholeTextRequest(_Scored):
    """`/classify` and `/pooling`: texts with prompt, response and markers in them, or messages."""

    input: Text | Texts | None = Field(
        None, description="Scored as they are; EOS is added where the model was trained with it."
    )
    messages: Annotated[list[ChatMessage], _CONVERSATION] | None = Field(
        None, description="A conversation that ends with the assistant's message to be scored."
    )

    @model_validator(mode="after")
    def _one_input(self) -> WholeTextRequest:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send exactly one of input (text) and messages")
        if self.messages is not None and self.messages[-1].role != "assistant":
            raise ValueError("messages must end with the assistant's message that is to be scored")
        return self


class SglangRequest(_Dialect):
    """SGLang's native `/classify`; told from vLLM's by its `text`."""

    text: Text | Texts


class ScoreRequest(_Scored):
    """`/score`: each second text as a response to its first; one first text serves them all."""

    text_1: Text | Texts = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: Text | Texts = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2")
    )

    def pairs(self) -> list[tuple[str, str]]:
        """Raises ValueError when the lengths do not fit."""
        seconds = listed(self.text_2)
        firsts = listed(self.text_1)
        if len(firsts) == 1:
            firsts = firsts * len(seconds)
        if len(firsts) != len(seconds):
            raise ValueError(
                f"text_1 has {len(firsts)} texts and text_2 {len(seconds)}: send one text_1, or as "
                "many as text_2"
            )
        return list(zip(firsts, seconds, strict=True))


class TextDocument(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    text: Text


class RerankRequest(_Scored):
    query: Annotated[Text, Field(min_length=1)]
    documents: Annotated[list[Text | TextDocument], Field(min_length=1, max_length=MAX_CANDIDATES)]
    top_n: int | None = Field(None, ge=0, description="0 and null return all.")
    return_documents: bool | None = None

    def texts(self) -> list[str]:
        return [item if isinstance(item, str) else item.text for item in self.documents]


class OpenRLHFRequest(_Dialect):
    """`/get_reward`: `query` holds whole texts; prompts and labels are not needed."""

    query: Text | Texts
    prompts: Any = None
    labels: Any = None


def listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def sigmoid(value: float) -> float:
    """Without overflow for any finite value."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def envelope(
    kind: str, model: str, rows: list[dict[str, Any]], results: list[BestOfN]
) -> dict[str, Any]:
    """vLLM's list answer."""
    num_tokens = num_tokens_of(results)
    num_cached = sum(result.num_cached_prompt_tokens for result in results)
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": rows,
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


def rewards_of(result: BestOfN) -> list[float]:
    """One for each text, in the order of the request."""
    return [item.score for item in result.candidates if item.score is not None]
