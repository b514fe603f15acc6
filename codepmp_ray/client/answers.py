"""What the service's answers mean: scores or an error. No input or output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import httpx

from codepmp_ray.errors import EngineError, InputError

# Stages that a candidate came through, by the one at which it fell out.
_NUM_BEFORE: dict[str | None, int] = {"extract": 0, "parse": 1, "run": 2}


@dataclass(frozen=True)
class CandidateScore:
    """One candidate's raw reward.

    Attributes:
        missing: why `score` is None: "deadline", "not_finite" where the model gave no number, or
            "fell_out".
        fell_out: the stage at which it fell out, where stages were asked for.
        disagreement: of an ensemble, the standard deviation of its models' rewards; `score` is then
            in standard deviations too.
        by_model: of an ensemble, the raw rewards.
    """

    score: float | None
    num_tokens: int
    truncated: bool
    missing: str | None = None
    fell_out: str | None = None
    disagreement: float | None = None
    by_model: dict[str, float | None] | None = None


class RequestRefused(InputError):
    """The service will not score this request, whenever it is sent: a text is too long, ..."""


@dataclass(frozen=True)
class ServedModel:
    """What a service says of its model.

    Attributes:
        weights_digest: 64 hex digits that other weights change; None where it does not say.
        max_model_len: tokens of prompt and candidate together, beyond which candidates are cut.
    """

    name: str
    weights_digest: str | None
    max_model_len: int | None
    dtype: str | None


@dataclass(frozen=True)
class Choice:
    """The best of one prompt's candidates, and all their scores in the order of the request.

    Attributes:
        num_saved: answers that were not drawn, because a rule said stop.
    """

    best_index: int
    scores: list[CandidateScore]
    num_saved: int = 0

    @property
    def fell_out(self) -> str | None:
        """The stage at which all fell out that had come so far, the best one too; else None."""
        return self.scores[self.best_index].fell_out

    @property
    def rewards(self) -> list[float]:
        """Scores of all candidates. Raises EngineError if some have none."""
        found = [item.score for item in self.scores if item.score is not None]
        if len(found) < len(self.scores):
            missing = len(self.scores) - len(found)
            why = "in time" if any(item.missing == "deadline" for item in self.scores) else "at all"
            raise EngineError(f"{missing} of {len(self.scores)} candidates have no score {why}.")
        return found


@dataclass(frozen=True)
class Hints:
    """Where a user of this client sets its address and its key, for messages."""

    address: str = "the client's url"
    key: str = "CODEPMP_API_KEY"


def read_scores(
    body: dict[str, Any], num_candidates: int, may_lack: bool, address: str
) -> list[CandidateScore]:
    """Scores in the order of the request's candidates. Raises EngineError for anything else.

    Only a request with a deadline may lack scores for want of time.
    """
    try:
        found = {int(item["index"]): _as_score(item) for item in body["data"]}
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{address} answered without valid scores: {error}.") from error
    has_all = may_lack or all(item.missing != "deadline" for item in found.values())
    if sorted(found) != list(range(num_candidates)) or not has_all:
        num_scored = sum(item.score is not None for item in found.values())
        raise EngineError(f"{address} scored {num_scored} of {num_candidates} candidates.")
    return [found[index] for index in range(num_candidates)]


def read_served_model(body: dict[str, Any], address: str, model: str | None = None) -> ServedModel:
    """The first model, or the one of that name. Raises InputError for what is no list of models."""
    try:
        cards = [card for card in body["data"] if model in (None, card["id"])]
        card = cards[0]
        digest, length, dtype = (card.get(k) for k in ("weights_digest", "max_model_len", "dtype"))
        return ServedModel(str(card["id"]), digest, length, dtype)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        named = f"the model {model!r}" if model else "a model"
        raise InputError(f"{address} does not name {named}; is it our service?") from error


def best_of(scores: list[CandidateScore], address: str, num_saved: int = 0) -> Choice:
    """The first of the highest scores among those that came through the most stages.

    Raises InputError for no candidates, EngineError if none has a score.
    """
    if not scores:
        raise InputError("There are no candidates to choose from.", "Send at least one.")
    found = {
        index: (_NUM_BEFORE.get(item.fell_out, len(_NUM_BEFORE)), item.score)
        for index, item in enumerate(scores)
        if item.score is not None
    }
    if not found:
        raise EngineError(f"{address} scored no candidate.")
    return Choice(max(found, key=lambda index: found[index]), scores, num_saved)


def read_body(answer: httpx.Response, address: str, hints: Hints) -> dict[str, Any]:
    """The JSON object of a good answer.

    Raises InputError for a wrong address or key, RequestRefused for a request that cannot be
    scored, EngineError when the service failed.
    """
    status = answer.status_code
    if status in (401, 403):
        raise InputError(
            f"{address} refused the API key (status {status}).",
            f"Set the environment variable {hints.key} to the key of that service.",
        )
    if status == 404:
        raise InputError(
            f"There is no best-of-N service at {address} (status 404: {message_of(answer)}).",
            f"Set {hints.address} to the address of the service, without a path.",
        )
    if status >= 500 and status != 501:
        raise EngineError(f"{address} failed (status {status}: {message_of(answer)}).")
    if status != 200:
        kind = RequestRefused if status in (413, 422) else InputError
        raise kind(f"{address} refused the request (status {status}: {message_of(answer)}).")
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise InputError(f"{address} does not answer with a JSON object; is it our service?")
    return body


def message_of(answer: httpx.Response) -> str:
    """The service's own words, shortened."""
    try:
        return str(answer.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.text[:100] or "no message"


def _as_score(item: dict[str, Any]) -> CandidateScore:
    score = None if item["score"] is None else float(item["score"])
    if score is not None and not math.isfinite(score):
        raise ValueError(f"the score of candidate {item['index']} is {score}")
    missing = None if score is not None else str(item.get("missing") or "deadline")
    num_tokens, is_cut = int(item["num_tokens"]), bool(item["truncated"])
    more = (item.get(name) for name in ("fell_out", "disagreement", "by_model"))
    return CandidateScore(score, num_tokens, is_cut, missing, *more)
