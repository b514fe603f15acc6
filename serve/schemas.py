"""Requests and responses of the HTTP interface.

Requests are strict: no coercion, unknown fields refused. Strings that are not Unicode text (lone
surrogates, which JSON can spell) are refused: no tokenizer takes them.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from codepmp_ray.preference.messages import Message, checked_messages
from codepmp_ray.scoring.best_of_n import BestOfN

MAX_CANDIDATES = 256
MAX_MESSAGES = 256
_MAX_FIELDS = 64


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is not Unicode text") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, body: object) -> object:
        """One problem for a body with a million fields, not a million problems."""
        if isinstance(body, dict) and len(body) > _MAX_FIELDS:
            raise ValueError(f"has {len(body)} fields; at most {_MAX_FIELDS} are looked at")
        return body


class TextPart(_Request):
    type: Literal["text", "input_text", "output_text"]
    text: Text


class ChatMessage(_Request):
    """As in OpenAI's API. What the model's chat template does not show is refused by name."""

    role: Annotated[Text, Field(min_length=1, max_length=64)]
    content: Text | list[TextPart] | None = None
    name: Text | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None
    refusal: Text | None = None

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing")
        return self


def plain_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """In the schema of rows of data. Raises InputError."""
    return checked_messages([message.model_dump() for message in messages], "messages")


class BonRequest(_Request):
    """One prompt and the candidates to choose from; `prompt` and `messages` exclude each other."""

    model: Text | None = Field(
        None, description="Name of the served model; null takes it as it is."
    )
    prompt: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="Put into the model's own prompt template as one user message."
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = (
        Field(None, description="Rendered with the chat template saved beside the weights.")
    )
    candidates: list[Text] = Field(min_length=1, max_length=MAX_CANDIDATES)
    top_n: int | None = Field(None, ge=1, le=MAX_CANDIDATES, description="Return the best n only.")
    deadline_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Answer with what is scored by then, as partial."
    )
    normalize: bool = Field(
        False, description="Scores as standard deviations from the mean of the calibration set."
    )
    probabilities: bool = Field(
        False, description="With each score the chance (Bradley-Terry) that it is the best one."
    )

    @model_validator(mode="after")
    def _one_prompt(self) -> BonRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send exactly one of prompt and messages")
        return self

    def prompt_or_messages(self) -> str | list[Message]:
        return self.prompt if self.prompt is not None else plain_messages(self.messages or [])


class Calibration(BaseModel):
    """Mean and standard deviation of the raw rewards of some fixed set of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: float
    std: float = Field(gt=0)


class BonCandidate(BaseModel):
    index: int = Field(description="Position in the request's candidates.")
    score: float | None = Field(
        description="Raw reward; compare it under one prompt only. Null if the deadline came first."
    )
    rank: int | None = Field(
        description="1 is the best; of equal scores the lower index comes first. Null unscored."
    )
    num_tokens: int = Field(description="Tokens of the candidate that were scored, EOS included.")
    truncated: bool = Field(description="Cut to fit the model: the score is that of its beginning.")
    duplicate_of: int | None = Field(description="First candidate with the same text, else null.")
    probability: float | None = Field(None, description="Where probabilities were asked for.")


class BonUsage(BaseModel):
    prompt_tokens: int = Field(description="Tokens of the prompt, counted once.")
    candidate_tokens: int = Field(description="Tokens of the distinct candidates.")
    cached_prompt_tokens: int = Field(
        description="Prompt tokens taken from the cache, summed over the distinct candidates."
    )


class BonResponse(BaseModel):
    id: str
    object: Literal["best_of_n"] = "best_of_n"
    model: str
    best_index: int
    partial: bool = Field(description="The deadline came before every candidate had its score.")
    data: list[BonCandidate]
    usage: BonUsage

    @classmethod
    def of(
        cls, result: BestOfN, model: str, request: BonRequest, calibration: Calibration | None
    ) -> BonResponse:
        chances = best_probabilities(result) if request.probabilities else {}
        data = []
        for item in result.candidates:
            if request.top_n is not None and (item.rank is None or item.rank > request.top_n):
                continue
            shown = BonCandidate.model_validate(item, from_attributes=True)
            shown.probability = chances.get(item.index)
            if calibration is not None and shown.score is not None:
                shown.score = (shown.score - calibration.mean) / calibration.std
            data.append(shown)
        return cls(
            id=f"bon-{uuid.uuid4().hex}",
            model=model,
            best_index=result.best_index,
            partial=result.is_partial,
            data=data,
            usage=BonUsage(
                prompt_tokens=result.num_prompt_tokens,
                candidate_tokens=result.num_response_tokens,
                cached_prompt_tokens=result.num_cached_prompt_tokens,
            ),
        )


def best_probabilities(result: BestOfN) -> dict[int, float]:
    """Chance of each scored candidate to be preferred to all others: softmax of the raw rewards.

    Bradley-Terry for two, Plackett-Luce for more: the model that the reward loss fits.
    """
    scores = {item.index: item.score for item in result.candidates if item.score is not None}
    highest = max(scores.values())
    weights = {index: math.exp(score - highest) for index, score in scores.items()}
    total = sum(weights.values())
    return {index: weight / total for index, weight in weights.items()}


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(default_factory=lambda: int(time.time()))
    owned_by: str = "codepmp-ray"
    weights_digest: str | None = Field(
        None, description="64 hex digits that other weights, or another tokenizer, change."
    )
    max_model_len: int | None = Field(None, description="Tokens of prompt and candidate together.")
    dtype: str | None = None


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(BaseModel):
    status: Literal["ok", "ready"]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every error, whatever its status, has this form."""

    error: ErrorDetail
