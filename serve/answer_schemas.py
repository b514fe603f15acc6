"""Responses of the HTTP interface."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from codepmp_ray.errors import InputError
from codepmp_ray.scoring.best_of_n import BestOfN
from codepmp_ray.scoring.calibration import probabilities
from codepmp_ray.scoring.stages import Stage

from .errors import ApiError
from .schemas import BonItem, BonOptions


def _is_none(value: object) -> bool:
    return value is None


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
    missing: Literal["deadline", "not_finite", "fell_out"] | None = Field(
        None, description="Why there is no score.", exclude_if=_is_none
    )
    fell_out: Stage | None = Field(
        None, description="The stage at which it fell out.", exclude_if=_is_none
    )
    disagreement: float | None = Field(
        None,
        description="Of an ensemble: standard deviation of its models' rewards, each in standard "
        "deviations from its own mean, as the score is.",
        exclude_if=_is_none,
    )
    by_model: dict[str, float | None] | None = Field(
        None, description="Of an ensemble: raw rewards.", exclude_if=_is_none
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
    all_fell_at: Stage | None = Field(
        None,
        description="The stage at which all fell out that had come so far: the reward chose among "
        "these, and later stages were not asked.",
        exclude_if=_is_none,
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
        "all_fell_at": outcome.all_fell_at,
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
    quantization: str | None = Field(
        None, description="How the weights are quantised, where they are.", exclude_if=_is_none
    )
    members: list[str] | None = Field(
        None, description="Of an ensemble: its models.", exclude_if=_is_none
    )
    ready: bool = Field(description="A request would be scored now.")
    host_memory_bytes: int | None = Field(
        None, description="Of a replica's processes; without that of a GPU."
    )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(BaseModel):
    status: Literal["ok", "ready"]
