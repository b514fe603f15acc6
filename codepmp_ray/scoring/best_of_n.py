"""Best-of-N: one prompt, many candidates, one raw reward for each.

`plan_request` turns text into ids (pure, CPU), a Scorer turns ids into rewards, `rank` turns
rewards into the answer. `best_of_n` is the three in a row; a server that weighs requests by their
tokens looks at the plan in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codepmp_ray.errors import DeadlineError, EngineError, InputError
from codepmp_ray.preference import messages
from codepmp_ray.preference.messages import Message
from codepmp_ray.preference.tokenization import Encoded, EncodedResponse, Encoder
from codepmp_ray.scoring.protocol import Scorer, Scores


@dataclass(frozen=True)
class ScoringRequest:
    """What a caller asks for.

    Attributes:
        prompt: put into the model's template; None where the candidates are whole texts that hold
            their prompt and its markers already.
        truncate: cut a candidate that does not fit, and say so, instead of refusing the request.
            Whole texts are never cut: that would take their answers away.
        timeout_s: answer with what has been scored by then.
    """

    prompt: str | Sequence[Message] | None
    candidates: Sequence[str]
    truncate: bool = True
    timeout_s: float | None = None


def num_chars(request: ScoringRequest) -> int:
    """Of the prompt once and of the distinct candidates: its size before it is tokenised."""
    prompt = request.prompt or ""
    num = len(prompt) if isinstance(prompt, str) else messages.num_chars(prompt)
    return num + sum(map(len, set(request.candidates)))


@dataclass(frozen=True)
class RequestPlan:
    """What one request asks the scorer to compute.

    Attributes:
        prompt_ids: what all sequences begin with: the prompt (`Encoded.split`).
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
        score: raw reward, None if the deadline came first.
        rank: 1 is the best; of equal scores the one with the lower index comes first. None without
            a score.
        num_tokens: response tokens that were scored, EOS included.
        truncated: the response was cut to fit the model, so its score is that of its beginning.
        duplicate_of: index of the first candidate with the same text, None for a first appearance.
    """

    index: int
    score: float | None
    rank: int | None
    num_tokens: int
    truncated: bool
    duplicate_of: int | None


@dataclass(frozen=True)
class BestOfN:
    """Result of one request; `candidates` are in the order in which they came.

    `is_partial` says that some of them have no score because the deadline came first.
    """

    best_index: int
    candidates: list[ScoredCandidate]
    num_prompt_tokens: int
    num_response_tokens: int
    num_cached_prompt_tokens: int

    @property
    def is_partial(self) -> bool:
        return any(candidate.score is None for candidate in self.candidates)


async def best_of_n(
    encoder: Encoder, scorer: Scorer, prompt: str | Sequence[Message], candidates: Sequence[str]
) -> BestOfN:
    """Score `candidates` as answers to `prompt`.

    Raises InputError for a prompt that does not fit the model, EngineError when scoring fails.
    """
    plan = plan_request(encoder, scorer.max_model_len, ScoringRequest(prompt, candidates))
    return rank(plan, await scorer.score_ids(plan.prompt_ids, plan.response_ids))


def plan_request(encoder: Encoder, max_model_len: int, request: ScoringRequest) -> RequestPlan:
    """Ids of the prompt (made once) and of each distinct candidate.

    Raises InputError for what does not fit `max_model_len` and may not be cut.
    """
    if not request.candidates:
        raise InputError("There are no candidates.", "Send at least one.")
    position = {text: n for n, text in enumerate(dict.fromkeys(request.candidates))}
    response_of = [position[text] for text in request.candidates]
    if request.prompt is None:
        encoded = Encoded([], [encoder.whole_text(text).ids for text in position])
    else:
        encoded = encoder.encode(request.prompt, list(position))
    if len(encoded.prompt) >= max_model_len:
        raise InputError(
            f"The prompt has {len(encoded.prompt)} tokens and leaves no room for a response within "
            f"max_model_len={max_model_len}.",
            "Shorten the prompt or raise serving.max_model_len.",
        )
    longest = max(range(len(position)), key=lambda n: len(encoded.sequences[n]))
    num_tokens = len(encoded.sequences[longest])
    if num_tokens > max_model_len and (request.prompt is None or not request.truncate):
        raise InputError(
            f"Text {response_of.index(longest)} has {num_tokens} tokens, over "
            f"max_model_len={max_model_len}.",
            "Shorten it or raise serving.max_model_len.",
        )
    prompt_ids, responses = encoded.split(max_model_len)
    if not prompt_ids and any(not response.ids for response in responses):
        raise InputError("The prompt and a candidate are both empty: there is no token to score.")
    return RequestPlan(prompt_ids, responses, response_of)


def rank(plan: RequestPlan, scores: Scores) -> BestOfN:
    """Give each candidate the reward of its text, and its place.

    Raises EngineError unless there is one finite reward per distinct candidate (or None where the
    deadline came first), DeadlineError if there is none at all.
    """
    rewards = scores.rewards
    if len(rewards) != len(plan.responses):
        raise EngineError(
            f"The scorer gave {len(rewards)} rewards for {len(plan.responses)} responses."
        )
    found = [reward for reward in rewards if reward is not None]
    bad = [reward for reward in found if not math.isfinite(reward)]
    if bad:
        raise EngineError(
            f"{len(bad)} of {len(rewards)} rewards are not finite (first: {bad[0]}).",
            "The model's weights or its number format are damaged; try serving.dtype=float32.",
        )
    if not found:
        raise DeadlineError("No candidate was scored in time.", "Allow more time or send fewer.")
    by_candidate = [rewards[response] for response in plan.response_of]
    scores_of = {index: score for index, score in enumerate(by_candidate) if score is not None}
    # Python's sort is stable: equal scores keep the order of their indices.
    order = sorted(scores_of, key=lambda index: -scores_of[index])
    place = {index: rank for rank, index in enumerate(order, start=1)}
    first_of: dict[int, int] = {}
    scored = []
    for index, position in enumerate(plan.response_of):
        first = first_of.setdefault(position, index)
        scored.append(
            ScoredCandidate(
                index=index,
                score=by_candidate[index],
                rank=place.get(index),
                num_tokens=len(plan.responses[position].ids),
                truncated=plan.responses[position].truncated,
                duplicate_of=None if first == index else first,
            )
        )
    return BestOfN(
        best_index=order[0],
        candidates=scored,
        num_prompt_tokens=len(plan.prompt_ids),
        num_response_tokens=plan.num_response_tokens,
        num_cached_prompt_tokens=scores.num_cached_prompt_tokens,
    )
