"""Plans and ranks: duplicates, cuts, ties, broken engines."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from codepmp_ray.errors import DeadlineError, EngineError, InputError
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.scoring.best_of_n import (
    REFUSE,
    Cut,
    ScoringRequest,
    Side,
    best_of_n,
    plan_request,
    rank,
    require_finite,
    require_scores,
)
from codepmp_ray.scoring.protocol import Scores
from tests.tiny_models import tiny_tokenizer


class FakeScorer:
    """Rewards by length and keeps what it was asked."""

    def __init__(self, max_model_len: int = 100) -> None:
        self.max_model_len = max_model_len
        self.calls: list[tuple[list[int], list[list[int]]]] = []

    async def score_ids(self, prompt_ids: list[int], responses: list[list[int]]) -> Scores:
        self.calls.append((prompt_ids, responses))
        return Scores([float(len(ids)) for ids in responses], num_cached_prompt_tokens=7)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = tiny_tokenizer()
    return Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "plain", append_eos=True))


def test_equal_candidates_are_scored_once_and_ranked_by_index(encoder: Encoder) -> None:
    scorer = FakeScorer()
    result = asyncio.run(best_of_n(encoder, scorer, "p", ["aa", "bbb", "aa", "c", "bbb"]))
    ((prompt_ids, responses),) = scorer.calls
    assert len(responses) == 3
    assert [item.score for item in result.candidates] == [3.0, 4.0, 3.0, 2.0, 4.0]
    assert [item.rank for item in result.candidates] == [3, 1, 4, 5, 2]
    assert [item.duplicate_of for item in result.candidates] == [None, None, 0, None, 1]
    assert [item.index for item in result.candidates] == [0, 1, 2, 3, 4]
    assert result.best_index == 1
    assert result.num_prompt_tokens == len(prompt_ids) == 2  # "p" and a newline
    assert result.num_response_tokens == 3 + 4 + 2  # EOS included, duplicates left out
    assert result.num_cached_prompt_tokens == 7


def test_candidates_that_differ_in_a_space_are_not_equal(encoder: Encoder) -> None:
    result = asyncio.run(best_of_n(encoder, FakeScorer(), "p", ["a", "a ", ""]))
    assert [item.duplicate_of for item in result.candidates] == [None, None, None]
    assert result.candidates[2].num_tokens == 1  # EOS alone


def test_response_is_cut_to_fit_and_says_so(encoder: Encoder) -> None:
    request = ScoringRequest("prompt", ["xx", "x" * 50])  # prompt: 7 ids, room: 3
    plan = plan_request(encoder, 10, request)
    assert [response.truncated for response in plan.responses] == [False, True]
    assert [len(ids) for ids in plan.response_ids] == [3, 3]
    assert all(len(plan.prompt_ids) + len(ids) <= 10 for ids in plan.response_ids)
    eos = encoder.tokenizer.eos_token_id
    assert plan.response_ids[0][-1] == eos
    assert plan.response_ids[1][-1] != eos  # a cut answer does not look finished
    flags = [item.truncated for item in rank(plan, Scores([1.0, 2.0])).candidates]
    assert flags == [False, True]


@pytest.mark.parametrize("length", [9, 50])
def test_prompt_that_leaves_no_room_is_refused_with_numbers(encoder: Encoder, length: int) -> None:
    with pytest.raises(InputError, match=rf"{length + 1} tokens.*max_model_len=10"):
        plan_request(encoder, 10, ScoringRequest("p" * length, ["x"]))
    one_token_fits = plan_request(encoder, length + 2, ScoringRequest("p" * length, ["x"]))
    assert one_token_fits.response_ids


def test_no_candidates_and_nothing_at_all_are_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="no candidates"):
        plan_request(encoder, 10, ScoringRequest("p", []))
    tokenizer = encoder.tokenizer
    bare = Encoder(tokenizer, PromptTemplate("plain", "", "", append_eos=False, chat_template=None))
    with pytest.raises(InputError, match="both empty"):
        plan_request(bare, 10, ScoringRequest("", ["x", ""]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_reward_that_is_not_finite_costs_its_own_candidate(encoder: Encoder, bad: float) -> None:
    plan = plan_request(encoder, 10, ScoringRequest("p", ["a", "b", "c"]))
    result = rank(plan, Scores([1.0, bad, 2.0]))
    assert [item.score for item in result.candidates] == [1.0, None, 2.0]
    assert [item.rank for item in result.candidates] == [2, None, 1]
    assert [item.missing for item in result.candidates] == [None, "not_finite", None]
    assert result.best_index == 2 and not result.is_partial
    require_scores([result])
    with pytest.raises(EngineError, match="1 of 3 rewards are not finite"):
        require_finite(result)
    all_bad = rank(plan, Scores([bad, bad, bad]))
    assert all_bad.best_index is None
    require_scores([all_bad, result])  # one of several prompts
    with pytest.raises(EngineError, match="3 of 3 rewards are not finite"):
        require_scores([all_bad])


def test_wrong_number_of_rewards_is_an_engine_error(encoder: Encoder) -> None:
    plan = plan_request(encoder, 10, ScoringRequest("p", ["a", "b"]))
    with pytest.raises(EngineError, match="1 rewards for 2"):
        rank(plan, Scores([1.0]))


def test_whole_texts_are_scored_as_they_are_with_one_eos(encoder: Encoder) -> None:
    eos = encoder.tokenizer.eos_token
    texts = ["ab", f"ab{eos}", f"ab{eos}\n", "ab\n"]
    plan = plan_request(encoder, 10, ScoringRequest(None, texts))
    assert plan.prompt_ids == []
    plain = encoder.tokenizer("ab", add_special_tokens=False)["input_ids"]
    whole = [*plain, encoder.tokenizer.eos_token_id]
    assert [plan.response_ids[i] for i in plan.response_of][:3] == [whole] * 3
    assert plan.response_ids[3] != whole  # a line break without EOS before it is text


@pytest.mark.parametrize(
    "request_",
    [ScoringRequest("p", ["ok", "x" * 50], REFUSE), ScoringRequest(None, ["ok", "x" * 50])],
)
def test_what_may_not_be_cut_is_refused_with_its_place(
    encoder: Encoder, request_: ScoringRequest
) -> None:
    with pytest.raises(InputError, match=r"Text 1 has 5\d tokens, over max_model_len=10"):
        plan_request(encoder, 10, request_)


def test_without_a_score_a_candidate_has_no_rank(encoder: Encoder) -> None:
    plan = plan_request(encoder, 10, ScoringRequest("p", ["a", "b", "c", "b"]))
    result = rank(plan, Scores([1.0, None, 2.0]))
    assert [item.rank for item in result.candidates] == [2, None, 1, None]
    assert [item.score for item in result.candidates] == [1.0, None, 2.0, None]
    assert result.is_partial and result.best_index == 2
    assert result.candidates[1].missing == "deadline"
    late = rank(plan, Scores([None, None, None]))
    with pytest.raises(DeadlineError, match="No candidate was scored in time"):
        require_scores([late, late])


def kept(encoder: Encoder, prompt: str | None, text: str, cut: Cut, length: int = 10) -> list[int]:
    plan = plan_request(encoder, length, ScoringRequest(prompt, ["ok", text], cut))
    flags = [response.truncated for response in plan.responses]
    assert flags == [False, True]
    return plan.prompt_ids + plan.response_ids[1]


def test_a_caller_says_how_much_is_lost_and_at_which_end(encoder: Encoder) -> None:
    whole = encoder.encode("p", ["abcdefghijkl"]).sequences[0]  # "p", line break, 12, EOS
    assert kept(encoder, "p", "abcdefghijkl", Cut("right")) == whole[:10]
    assert kept(encoder, "p", "abcdefghijkl", Cut("left")) == whole[-10:]
    assert kept(encoder, "p", "abcdefghijkl", Cut("right", max_tokens=7)) == whole[:7]
    assert kept(encoder, "p", "abcdefghijkl", Cut("left", max_tokens=7)) == whole[-7:]
    assert kept(encoder, "p", "abcdefghijkl", Cut(max_response_tokens=4)) == whole[:6]
    text = encoder.whole_text("abcdefghijkl").ids
    assert kept(encoder, None, "abcdefghijkl", Cut("right")) == text[:10]
    assert kept(encoder, None, "abcdefghijkl", Cut("left")) == text[-10:]
    ids = (5, 6, 7, 8)
    assert plan_request(encoder, 3, ScoringRequest(None, [ids], Cut("left"))).response_ids == [
        [6, 7, 8]
    ]


def test_a_cut_to_the_documents_does_not_cut_the_whole(encoder: Encoder) -> None:
    request = ScoringRequest("p" * 8, ["abc"], Cut(max_response_tokens=3))
    with pytest.raises(InputError, match="over max_model_len=10"):
        plan_request(encoder, 10, request)


def test_a_prompt_that_is_too_long_loses_its_beginning_on_request_only(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="truncation_side"):
        plan_request(encoder, 10, ScoringRequest("abcdefghijkl", ["ok"], Cut("right")))
    plan = plan_request(encoder, 10, ScoringRequest("abcdefghijkl", ["ok", "fine"], Cut("left")))
    rows = [plan.prompt_ids + ids for ids in plan.response_ids]
    whole = encoder.encode("abcdefghijkl", ["ok", "fine"]).sequences
    assert rows == [ids[-10:] for ids in whole]
    assert [response.truncated for response in plan.responses] == [True, True]


@pytest.mark.parametrize("side", ["right", "left", None])
@pytest.mark.parametrize("prompt", ["p", None])
def test_no_more_of_a_text_is_tokenised_than_can_be_kept(
    encoder: Encoder, side: Side | None, prompt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is that of the whole text, also where its tokens are long."""
    text = "".join(f"{number} " for number in range(200_000))
    expected = encoder.encode(prompt, [text]).sequences[0] if prompt else None
    sizes: list[int] = []
    real = encoder.tokenizer.__class__.__call__

    def watched(self: Any, texts: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(max(map(len, [texts] if isinstance(texts, str) else texts), default=0))
        return real(self, texts, *args, **kwargs)

    monkeypatch.setattr(encoder.tokenizer.__class__, "__call__", watched)
    request = ScoringRequest(prompt, [text], Cut(side))
    if side is None:
        with pytest.raises(InputError, match="has more than"):
            plan_request(encoder, 50, request)
    else:
        plan = plan_request(encoder, 50, request)
        row = plan.prompt_ids + plan.response_ids[0]
        assert len(row) == 50 and plan.responses[0].truncated
        if expected is not None:
            assert row == (expected[-50:] if side == "left" else expected[:50])
    assert max(sizes) < 2_000


def test_ids_outside_the_vocabulary_are_the_callers_error(encoder: Encoder) -> None:
    request = ScoringRequest(None, [(5,), (5, 1_000)], places=[7, 8])
    with pytest.raises(InputError, match="Text 8 has the token id 1000; the model has 300"):
        plan_request(encoder, 10, request, vocab_size=300)
