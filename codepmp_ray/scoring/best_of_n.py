"""Best-of-N: one prompt, many candidates, one raw reward for each.

`plan_request` turns text into ids (pure, CPU), a Scorer turns ids into rewards, `rank` turns
rewards into the answer. `best_of_n` is the three in a row; a server that weighs requests by their
tokens looks at the plan in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from codepmp_ray.errors import DeadlineError, EngineError, InputError
from codepmp_ray.preference import messages
from codepmp_ray.preference.messages import Message
from codepmp_ray.preference.tokenization import Encoded, EncodedResponse, Encoder
from codepmp_ray.scoring.protocol import Scorer, Scores
from codepmp_ray.scoring.stages import Stage, StagesAsked

# A text, or the ids of one, which are scored as they are.
Candidate = str | tuple[int, ...]
Side = Literal["right", "left"]
# More than what is kept of a text is tokenised only where its tokens are longer than that.
_USUAL_CHARS_PER_TOKEN, _GROWTH = 8, 4


@dataclass(frozen=True)
class Cut:
    """What may be taken from a text that is too long.

    Attributes:
        side: the end that is lost. None: nothing, the request is refused. Of whole texts the right
            end is their answer's.
        max_tokens: of prompt and response together, where that is less than the model takes.
        max_response_tokens: of each response, whose right end is lost whatever `side` says.
    """

    side: Side | None = None
    max_tokens: int | None = None
    max_response_tokens: int | None = None


REFUSE, RIGHT = Cut(), Cut("right")


@dataclass(frozen=True)
class ScoringRequest:
    """What a caller asks for.

    Attributes:
        prompt: put into the model's template; None where the candidates are whole texts that hold
            their prompt and its markers already, or ids.
        cut: what happens to a text that does not fit; what was cut says so. None: the right end of
            a response is lost, and whole texts are refused.
        timeout_s: answer with what has been scored by then.
        places: of the candidates in what the caller sent, for error messages.
        stages: what candidates have to come through before they are scored.
    """

    prompt: str | Sequence[Message] | None
    candidates: Sequence[Candidate]
    cut: Cut | None = None
    timeout_s: float | None = None
    places: Sequence[int] | None = None
    stages: StagesAsked | None = None


def num_chars(request: ScoringRequest) -> int:
    """Of the prompt once and of the distinct candidates: its size before it is tokenised."""
    prompt = request.prompt or ""
    num = len(prompt) if isinstance(prompt, str) else messages.num_chars(prompt)
    return num + sum(map(len, set(request.candidates)))


@dataclass(frozen=True)
class RequestPlan:
    """What one request asks the scorer to compute.

    Attributes:
        prompt_ids: what all sequences begin with: the prompt (`Encoded.split`). Less, or nothing,
            where the left end of a sequence was cut.
        responses: distinct candidates in the order of their first appearance.
        response_of: for each candidate, its position in `responses`.
    """

    prompt_ids: list[int]
    responses: list[EncodedResponse]
    response_of: list[int]

    @property
    def response_ids(self) -> list[list[int]]:
        return [response.ids for response in self.responses]

    @property
    def num_response_tokens(self) -> int:
        """Tokens of the distinct candidates: what is computed, duplicates left out."""
        return sum(len(response.ids) for response in self.responses)


@dataclass(frozen=True)
class ScoredCandidate:
    """One candidate's place.

    Attributes:
        score: raw reward, None if there is none.
        rank: 1 is the best; of equal scores the one with the lower index comes first. None without
            a score.
        num_tokens: response tokens that were scored, EOS included.
        truncated: the text was cut to fit, so its score is that of what was left.
        duplicate_of: index of the first candidate with the same text, None for a first appearance.
        missing: why there is no score: the deadline came first, the model gave no finite number, or
            the candidate fell out before.
        fell_out: the stage at which it did; with a score where all others did no better.
    """

    index: int
    score: float | None
    rank: int | None
    num_tokens: int
    truncated: bool
    duplicate_of: int | None
    missing: Literal["deadline", "not_finite", "fell_out"] | None = None
    fell_out: Stage | None = None


@dataclass(frozen=True)
class BestOfN:
    """Result of one request; `candidates` are in the order in which they came.

    Attributes:
        best_index: None where no candidate has a score.
        weights_digest: of the weights that made it, where the scorer is told (serve/weights.py).
        temperature: of the model, see scoring/calibration.py.
        all_fell_at: the stage at which all fell out that had come so far; the best one too.
    """

    best_index: int | None
    candidates: list[ScoredCandidate]
    num_prompt_tokens: int
    num_response_tokens: int
    num_cached_prompt_tokens: int
    weights_digest: str | None = field(default=None, compare=False)
    temperature: float = field(default=1.0, compare=False)
    all_fell_at: Stage | None = None

    @property
    def is_partial(self) -> bool:
        """The deadline came before every candidate was scored."""
        return any(candidate.missing == "deadline" for candidate in self.candidates)

    @property
    def num_not_finite(self) -> int:
        return sum(candidate.missing == "not_finite" for candidate in self.candidates)


async def best_of_n(
    encoder: Encoder, scorer: Scorer, prompt: str | Sequence[Message], candidates: Sequence[str]
) -> BestOfN:
    """Score `candidates` as answers to `prompt`.

    Raises InputError for a prompt that does not fit the model, EngineError when scoring fails.
    """
    plan = plan_request(encoder, scorer.max_model_len, ScoringRequest(prompt, candidates))
    result = rank(plan, await scorer.score_ids(plan.prompt_ids, plan.response_ids))
    require_finite(result)
    return result


def plan_request(
    encoder: Encoder, max_model_len: int, request: ScoringRequest, vocab_size: int | None = None
) -> RequestPlan:
    """Ids of the prompt (made once) and of each distinct candidate.

    Raises InputError for what does not fit `max_model_len` and may not be cut, and for a caller's
    id that is not below `vocab_size`.
    """
    if not request.candidates:
        raise InputError("There are no candidates.", "Send at least one.")
    position = {text: n for n, text in enumerate(dict.fromkeys(request.candidates))}
    response_of = [position[text] for text in request.candidates]
    places = request.places or range(len(request.candidates))
    _require_known_ids(request, places, vocab_size)
    cut = request.cut or (REFUSE if request.prompt is None else RIGHT)
    limit = min(max_model_len, cut.max_tokens or max_model_len)
    within = f"max_model_len={max_model_len}" if limit == max_model_len else f"{limit} tokens"
    encoded, over = _encoded(encoder, request.prompt, list(position), limit, cut.side)
    num_prompt = len(encoded.prompt)
    if num_prompt >= limit and cut.side != "left":
        raise InputError(
            f"The prompt has {over}{num_prompt} tokens and leaves no room for a response within "
            f"{within}.",
            "Shorten the prompt, raise serving.max_model_len, or let its beginning be lost "
            "(truncation_side or serving.truncate: left).",
        )
    kept = encoded.sequences
    if cut.max_response_tokens is not None:
        kept = [ids[: num_prompt + cut.max_response_tokens] for ids in kept]
    longest = max(range(len(kept)), key=lambda n: len(kept[n]))
    if cut.side is None and len(kept[longest]) > limit:
        raise InputError(
            f"Text {places[response_of.index(longest)]} has {over}{len(kept[longest])} tokens, "
            f"over {within}.",
            "Shorten it, raise serving.max_model_len, or have it cut (truncate_prompt_tokens in "
            "the request, or serving.truncate).",
        )
    kept = [ids[-limit:] if cut.side == "left" else ids[:limit] for ids in kept]
    prompt_ids, responses = Encoded(encoded.prompt, kept).split()
    if not prompt_ids and any(not response.ids for response in responses):
        raise InputError("The prompt and a candidate are both empty: there is no token to score.")
    flagged = [
        EncodedResponse(response.ids, truncated=len(short) < len(ids))
        for response, short, ids in zip(responses, kept, encoded.sequences, strict=True)
    ]
    return RequestPlan(prompt_ids, flagged, response_of)


def _encoded(
    encoder: Encoder,
    prompt: str | Sequence[Message] | None,
    texts: list[Candidate],
    limit: int,
    side: Side | None,
) -> tuple[Encoded, str]:
    """(ids, "more than " where these are of the beginnings of longer texts).

    No more of a text is tokenised than is needed to see that over `limit` tokens of it are there:
    a text of megabytes would hold up the others.
    """
    rendered = "" if prompt is None else encoder.render(prompt)
    size = limit * _USUAL_CHARS_PER_TOKEN
    while True:
        short = [text if not isinstance(text, str) else _end(text, size, side) for text in texts]
        head = _end(rendered, size, side)
        if prompt is None:
            ids = [encoder.whole_text(t).ids if isinstance(t, str) else list(t) for t in short]
            encoded = Encoded([], ids)
        else:
            encoded = encoder.encode_rendered([(head, [str(text) for text in short])])[0]
        num_prompt = len(encoded.prompt)
        is_enough = len(head) == len(rendered) or num_prompt > limit
        is_cut = [len(a) < len(b) for a, b in zip(short, texts, strict=True)]
        if is_enough and all(
            len(ids) - num_prompt > limit
            for ids, was_cut in zip(encoded.sequences, is_cut, strict=True)
            if was_cut
        ):
            return encoded, "more than " if any(is_cut) or len(head) < len(rendered) else ""
        size *= _GROWTH


def _end(text: str, size: int, side: Side | None) -> str:
    """What is left of `text` when `side` is lost."""
    return text[-size:] if side == "left" else text[:size]


def _require_known_ids(
    request: ScoringRequest, places: Sequence[int], vocab_size: int | None
) -> None:
    for number, ids in enumerate(request.candidates):
        if vocab_size and not isinstance(ids, str) and max(ids, default=0) >= vocab_size:
            raise InputError(
                f"Text {places[number]} has the token id {max(ids)}; the model has {vocab_size}.",
                "Send ids of the served model's own tokenizer.",
            )


def rank(plan: RequestPlan, scores: Scores) -> BestOfN:
    """Give each candidate the reward of its text, and its place.

    A reward that is not a finite number is none: it costs its own candidate only.
    Raises EngineError unless there is one reward per distinct candidate, or None where the
    deadline came first.
    """
    rewards = scores.rewards
    if len(rewards) != len(plan.responses):
        raise EngineError(
            f"The scorer gave {len(rewards)} rewards for {len(plan.responses)} responses."
        )
    by_candidate = [rewards[response] for response in plan.response_of]
    scores_of = {
        index: score
        for index, score in enumerate(by_candidate)
        if score is not None and math.isfinite(score)
    }
    # Python's sort is stable: equal scores keep the order of their indices.
    order = sorted(scores_of, key=lambda index: -scores_of[index])
    place = {index: rank for rank, index in enumerate(order, start=1)}
    first_of: dict[int, int] = {}
    scored = []
    for index, position in enumerate(plan.response_of):
        first = first_of.setdefault(position, index)
        missing = "deadline" if by_candidate[index] is None else "not_finite"
        scored.append(
            ScoredCandidate(
                index=index,
                score=scores_of.get(index),
                rank=place.get(index),
                num_tokens=len(plan.responses[position].ids),
                truncated=plan.responses[position].truncated,
                duplicate_of=None if first == index else first,
                missing=None if index in place else missing,
            )
        )
    return BestOfN(
        best_index=order[0] if order else None,
        candidates=scored,
        num_prompt_tokens=len(plan.prompt_ids),
        num_response_tokens=plan.num_response_tokens,
        num_cached_prompt_tokens=scores.num_cached_prompt_tokens,
    )


def require_scores(results: Sequence[BestOfN]) -> None:
    """Raises DeadlineError where no candidate of any result was scored in time, EngineError where
    none has a finite reward.
    """
    if any(result.best_index is not None for result in results):
        return
    if any(result.is_partial for result in results):
        raise DeadlineError("No candidate was scored in time.", "Allow more time or send fewer.")
    raise _not_finite(results)


def require_finite(result: BestOfN) -> None:
    """Raises EngineError for a reward that is not a finite number."""
    if result.num_not_finite:
        raise _not_finite([result])


def _not_finite(results: Sequence[BestOfN]) -> EngineError:
    num = sum(result.num_not_finite for result in results)
    return EngineError(
        f"{num} of {sum(len(result.candidates) for result in results)} rewards are not finite.",
        "The model's weights or its number format are damaged; try serving.dtype=float32.",
    )


def unscored(request: ScoringRequest) -> BestOfN:
    """The result of a request whose deadline came before anything else."""
    candidates = [
        ScoredCandidate(index, None, None, 0, False, None, "deadline")
        for index in range(len(request.candidates))
    ]
    return BestOfN(None, candidates, 0, 0, 0)
