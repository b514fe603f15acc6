"""The reference scorer against transformers, row by row, without padding."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from benchmarks._families import FAMILIES
from codepmp_ray.errors import EngineError, ModelError
from codepmp_ray.scoring.torch_scorer import TorchScorer, _batches
from tests.tiny_models import plain_transformers_score, save_tiny_reward_model

# fp32: padding changes the shapes of the kernels and with them the order of sums.
TOLERANCE = 1e-5
PROMPT = [5, 60, 61, 62, 63, 64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("reward") / "model", pad_is_eos=True)


@pytest.mark.parametrize("max_batch_tokens", [1, 40, 8192])
def test_scores_are_those_of_rows_without_padding(folder: Path, max_batch_tokens: int) -> None:
    scorer = TorchScorer.load(folder, max_model_len=256)
    scorer._max_batch_tokens = max_batch_tokens
    pad = scorer._model.config.pad_token_id
    # The third ends in pad tokens: a search for the last token that is no pad reads another one.
    responses = [[70, 71, 2], [70], [70, 71, pad, pad], [80, 81, 82, 83, 84, 85, 86, 2], []]
    scores = asyncio.run(scorer.score_ids(PROMPT, responses))
    expected = [plain_transformers_score(folder, PROMPT + ids) for ids in responses]
    assert scores.rewards == pytest.approx(expected, abs=TOLERANCE)
    assert max(expected) - min(expected) > 100 * TOLERANCE  # the rows do differ


def test_batches_hold_every_row_once_within_the_budget() -> None:
    rows = [[0] * length for length in (9, 1, 5, 5, 30, 2)]
    groups = _batches(rows, max_tokens=12)
    assert sorted(index for group in groups for index in group) == list(range(6))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(rows[i]) for i in group) <= 12


def test_id_outside_the_vocabulary_is_an_engine_error(folder: Path) -> None:
    scorer = TorchScorer.load(folder, max_model_len=256)
    with pytest.raises(EngineError, match="10000000 is outside the model's vocabulary"):
        asyncio.run(scorer.score_ids(PROMPT, [[10_000_000]]))


def test_folder_without_a_reward_model_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        TorchScorer.load(tmp_path / "missing", max_model_len=16)
    with pytest.raises(ModelError, match="num_labels=2"):
        TorchScorer.load(tiny_model_dir, max_model_len=16)
    damaged = save_tiny_reward_model(tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        TorchScorer.load(damaged, max_model_len=16)


def scorer_of(name: str, max_model_len: int = 512) -> TorchScorer:
    """A random classifier of a family of transformers, in a tiny shape."""
    import torch
    from transformers import AutoModel

    from codepmp_ray.scoring.classifier import HeadedBase

    (family,) = (family for family in FAMILIES if family.name == name)
    torch.manual_seed(0)
    model = HeadedBase(AutoModel.from_config(family.config(), dtype=torch.float32), 64)
    model.score.weight.data.mul_(20)
    return TorchScorer(model, max_model_len)


def some_ids(number: int, seed: int = 0) -> list[int]:
    return [10 + (7 * index * index + 31 * index + seed) % 200 for index in range(number)]


def whole_rows(scorer: TorchScorer, prompt: list[int], responses: list[list[int]]) -> list[float]:
    return [scorer._forward([prompt + response])[0] for response in responses]


# Full attention, a window that is shorter than the prompt, learned positions, ALiBi.
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mistral", "gpt2", "bloom"])
def test_a_prompt_is_computed_once_and_the_scores_stay(name: str) -> None:
    scorer = scorer_of(name)
    for num_prompt, lengths in ((40, (5, 17, 9)), (60, (3, 30)), (150, (2, 90))):
        prompt = some_ids(num_prompt)
        responses = [some_ids(length, seed=length) for length in lengths]
        scores = asyncio.run(scorer.score_ids(prompt, responses))
        assert scores.rewards == pytest.approx(whole_rows(scorer, prompt, responses), abs=1e-4)
        assert scores.num_cached_prompt_tokens == num_prompt * (len(lengths) - 1)
    # A response without tokens ends where the prompt does: nothing goes on from it.
    scores = asyncio.run(scorer.score_ids(prompt, [[], *responses]))
    assert scores.num_cached_prompt_tokens == 0
    assert scores.rewards[1:] == pytest.approx(whole_rows(scorer, prompt, responses), abs=1e-4)


def test_a_family_that_cannot_go_on_from_a_cache_is_computed_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = scorer_of("granitemoehybrid")
    prompt, responses = some_ids(40), [some_ids(5), some_ids(9, seed=3)]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            scores = asyncio.run(scorer.score_ids(prompt, responses))
            expected = whole_rows(scorer, prompt, responses)
            assert scores.rewards == pytest.approx(expected, abs=1e-4)
            assert scores.num_cached_prompt_tokens == 0
    (said,) = [record.message for record in caplog.records if "cached prompt" in record.message]
    assert said.startswith("granitemoehybrid does not go on from a cached prompt")


def test_a_cache_that_goes_wrong_with_longer_rows_is_found(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = scorer_of("llama")
    right: Any = scorer._model.base_model.forward

    def forgetful(**options: Any) -> Any:
        made = right(**options)
        if options.get("past_key_values") and options["attention_mask"].shape[1] > 100:
            made.last_hidden_state = made.last_hidden_state * 1.01
        return made

    monkeypatch.setattr(scorer._model.base_model, "forward", forgetful)
    responses = [some_ids(5), some_ids(9, seed=3)]
    for num_prompt, num_cached in ((40, 40), (120, 0), (40, 0)):
        prompt = some_ids(num_prompt)
        scores = asyncio.run(scorer.score_ids(prompt, responses))
        assert scores.num_cached_prompt_tokens == num_cached
        assert scores.rewards == pytest.approx(whole_rows(scorer, prompt, responses), abs=1e-4)
    assert "its rewards differ" in caplog.text


def test_a_cache_that_goes_wrong_beside_padding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of("llama")
    right: Any = scorer._model.base_model.forward

    def forgetful(**options: Any) -> Any:
        made = right(**options)
        if options.get("past_key_values") and not options["attention_mask"].all():
            made.last_hidden_state = made.last_hidden_state * 1.01
        return made

    monkeypatch.setattr(scorer._model.base_model, "forward", forgetful)
    prompt, responses = some_ids(40), [some_ids(9, seed=3), some_ids(5)]
    scores = asyncio.run(scorer.score_ids(prompt, responses))
    assert scores.num_cached_prompt_tokens == 0
    assert scores.rewards == pytest.approx(whole_rows(scorer, prompt, responses), abs=1e-4)


def test_positions_that_change_with_the_longest_row_are_each_row_s_own() -> None:
    scorer = scorer_of("phi3, longrope", max_model_len=512)
    prompt, responses = some_ids(20), [some_ids(5), some_ids(300, seed=3)]
    scores = asyncio.run(scorer.score_ids(prompt, responses))
    assert scores.num_cached_prompt_tokens == 0
    assert scores.rewards == pytest.approx(whole_rows(scorer, prompt, responses), abs=1e-6)
    beside = scorer._forward([prompt + response for response in responses])
    assert abs(beside[0] - whole_rows(scorer, prompt, responses)[0]) > 1e-4  # it would matter
