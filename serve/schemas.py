"""Requests and responses of the HTTP interface.

Requests are strict: no coercion, unknown fields refused. Strings that are not Unicode text (lone
surrogates, which JSON can spell) are refused: no tokenizer takes them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from codepmp_ray.errors import InputError
from codepmp_ray.preference.messages import Message, checked_messages
from codepmp_ray.scoring.best_of_n import RIGHT, BestOfN, Cut, ScoringRequest
from codepmp_ray.scoring.calibration import probabilities

from .errors import ApiError

MAX_CANDIDATES = 256  # of one prompt in /v1/bon, and of what is scored in one turn
MAX_PROMPTS = 1_024  # of one call to /v1/bon
MAX_MESSAGES = 256
_MAX_FIELDS = 64


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is not Unicode text") from None
    return text


def _is_none(value: object) -> bool:
    return value is None


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


class ChatMessage(BaseModel):
    """As in OpenAI's API, and as rows of data have it: `preference.messages` looks at all of it.

    `content` is text or parts of type "text". Fields that the model's chat template may show
    (`tool_calls`, `name`, `reasoning_content`, ...) have to be shown by it; others are left out.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    role: Annotated[Text, Field(min_length=1, max_length=64)]
    content: Text | list[dict[str, Any]] | None = None


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


def plain_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """In the schema of rows of data. Raises InputError."""
    return checked_messages([message.model_dump() for message in messages], "messages")


class BonItem(_Request):
    """A prompt and the candidates to choose from; `prompt` and `messages` exclude each other."""

    prompt: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="Put into the model's own prompt template as one user message."
    )
    messages: Messages | None = Field(
        None, description="Rendered with the chat template saved beside the weights."
    )
    candidates: list[Text] = Field(min_length=1, max_length=MAX_CANDIDATES)
    top_n: int | None = Field(None, ge=1, le=MAX_CANDIDATES, description="Return the best n only.")

    @model_validator(mode="after")
    def _one_prompt(self) -> BonItem:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send exactly one of prompt and messages")
        if self.messages and self.messages[-1].role == "assistant":
            raise ValueError("messages ends with the assistant's turn: send it as a candidate")
        return self

    def prompt_or_messages(self) -> str | list[Message]:
        """Raises InputError."""
        return self.prompt if self.prompt is not None else plain_messages(self.messages or [])


class BonOptions(_Request):
    model: Text | None = Field(
        None, description="Name of the served model; null takes it as it is."
    )
    deadline_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Answer with what is scored by then, as partial."
    )
    normalize: bool = Field(
        False, description="Scores as standard deviations from the mean of the calibration set."
    )
    probabilities: bool = Field(
        False, description="With each score the chance (Bradley-Terry) that it is the best one."
    )
    truncate: Literal["refuse", "right", "left"] | None = Field(
        None,
        description="Of prompt and candidate together, the end that is cut where they are too "
        "long. Null: right, or what the service is set to.",
    )

    def asked(self, item: BonItem, usual: Cut) -> ScoringRequest:
        """Raises InputError for messages that cannot be used."""
        cut = usual if usual.side else RIGHT
        if self.truncate is not None:
            cut = Cut(None if self.truncate == "refuse" else self.truncate)
        timeout_s = None if self.deadline_ms is None else self.deadline_ms / 1000
        return ScoringRequest(item.prompt_or_messages(), item.candidates, cut, timeout_s)


class BonRequest(BonItem, BonOptions):
    """One prompt."""


class BonManyRequest(BonOptions):
    """Many prompts in one call, with one deadline."""

    requests: list[BonItem] = Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)


def _kind_of_bon(body: object) -> str:
    return "many" if isinstance(body, dict) and "requests" in body else "one"


BonBody = Annotated[
    Annotated[BonRequest, Tag("one")] | Annotated[BonManyRequest, Tag("many")],
    Discriminator(_kind_of_bon),
]


class Calibration(BaseModel):
    """Mean and standard deviation of the raw rewards of some fixed set of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: float
    std: float = Field(gt=0)


class BonCandidate(BaseModel):
    index: int = Field(description="Position in the request's candidates.")
    score: float | None = Field(
        description="Raw reward; compare it under one prompt only. Null if there is none."
    )
    rank: int | None = Field(
        description="1 is the best; of equal scores the lower index comes first. Null unscored."
    )
    num_tokens: int = Field(description="Tokens of the candidate that were scored, EOS included.")
    truncated: bool = Field(description="Cut to fit: the score is that of what was left.")
    duplicate_of: int | None = Field(description="First candidate with the same text, else null.")
    probability: float | None = Field(None, description="Where probabilities were asked for.")
    missing: Literal["deadline", "not_finite"] | None = Field(
        None, description="Why there is no score.", exclude_if=_is_none
    )


class BonUsage(BaseModel):
    prompt_tokens: int = Field(description="Tokens of the prompt, counted once.")
    candidate_tokens: int = Field(description="Tokens of the distinct candidates.")
    cached_prompt_tokens: int = Field(
        description="Prompt tokens taken from the cache, summed over the distinct candidates."
    )


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every error, whatever its status, has this form."""

    error: ErrorDetail


class _BonResult(BaseModel):
    best_index: int | None = Field(None, description="Null where no candidate has a score.")
    partial: bool = Field(
        False, description="The deadline came before every candidate had its score."
    )
    data: list[BonCandidate] = []
    usage: BonUsage
    weights_digest: str | None = Field(
        None, description="Of the weights that made the scores.", exclude_if=_is_none
    )


def fields_of(
    outcome: BestOfN | InputError,
    item: BonItem,
    options: BonOptions,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """What an answer says of one prompt."""
    if isinstance(outcome, InputError):
        usage = BonUsage(prompt_tokens=0, candidate_tokens=0, cached_prompt_tokens=0)
        return {"usage": usage, "error": ApiError(422, str(outcome), param="requests").detail()}
    chances = _chances(outcome) if options.probabilities else {}
    data = []
    for found in outcome.candidates:
        if item.top_n is not None and (found.rank is None or found.rank > item.top_n):
            continue
        shown = BonCandidate.model_validate(found, from_attributes=True)
        shown.probability = chances.get(found.index)
        if calibration is not None and shown.score is not None:
            shown.score = (shown.score - calibration.mean) / calibration.std
        data.append(shown)
    return {
        "best_index": outcome.best_index,
        "partial": outcome.is_partial,
        "data": data,
        "usage": BonUsage(
            prompt_tokens=outcome.num_prompt_tokens,
            candidate_tokens=outcome.num_response_tokens,
            cached_prompt_tokens=outcome.num_cached_prompt_tokens,
        ),
        "weights_digest": outcome.weights_digest,
    }


class BonResponse(_BonResult):
    id: str = Field(default_factory=lambda: f"bon-{uuid.uuid4().hex}")
    object: Literal["best_of_n"] = "best_of_n"
    model: str


class BonItemResult(_BonResult):
    """`error` says why there is no result: a prompt that cannot be scored costs its own only."""

    index: int = Field(description="Position in requests.")
    error: ErrorDetail | None = Field(None, exclude_if=_is_none)


class BonManyResponse(BaseModel):
    id: str = Field(default_factory=lambda: f"bon-{uuid.uuid4().hex}")
    object: Literal["best_of_n.list"] = "best_of_n.list"
    model: str
    partial: bool = Field(description="Of any of them.")
    results: list[BonItemResult] = Field(description="In the order of requests.")


def _chances(result: BestOfN) -> dict[int, float]:
    """Chance of each scored candidate to be preferred to all others, by the model's temperature."""
    scores = {item.index: item.score for item in result.candidates if item.score is not None}
    found = probabilities([*scores.values()], result.temperature) if scores else []
    return dict(zip(scores, found, strict=True))


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
