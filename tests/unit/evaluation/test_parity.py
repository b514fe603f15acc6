"""The comparison fails when it should; the torch ways agree on a model with known weaknesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from codepmp_ray.errors import InputError, ParityError
from codepmp_ray.evaluation.parity import compare, humaneval_questions, make_question, torch_rewards
from codepmp_ray.preference.tokenization import Encoder
from tests.tiny_models import save_tiny_reward_model

NAN = float("nan")
REFERENCE = [[0.0, 1.0], [3.0, 2.0]]


@pytest.mark.parametrize(
    ("dtype", "other"),
    [
        ("float32", [[0.00009, 1.0], [3.0, 2.0]]),
        ("bfloat16", [[0.74, 1.0], [3.0, 2.4]]),  # up to 25 % of 3, and 10 % in the mean
    ],
)
def test_small_differences_are_roundings(dtype: str, other: list[list[float]]) -> None:
    compare({"a": REFERENCE, "b": other}, dtype).require()


@pytest.mark.parametrize(
    ("dtype", "other", "words"),
    [
        ("float32", [[0.0002, 1.0], [3.0, 2.0]], "a and c differ by up to 0.0002 in float32"),
        ("float32", [[0.0, 1.0], [NAN, 2.0]], "differ by up to nan"),
        ("float32", [[NAN, 1.0], [3.0, 2.0]], "differ by up to nan"),
        ("bfloat16", [[0.0, 1.0], [3.0, 1.2]], r"up to 0.8 in bfloat16 .* where 0.75 \(0.3\)"),
        ("bfloat16", [[0.6, 1.4], [3.1, 2.2]], r"\(0.33 in the mean\), where 0.75 \(0.3\)"),
        ("float32", [[0.0, 1.0]], "did not score the same texts"),
    ],
)
def test_larger_ones_are_an_error(dtype: str, other: list[list[float]], words: str) -> None:
    with pytest.raises(ParityError, match=words):
        compare({"a": REFERENCE, "c": other, "b": REFERENCE}, dtype).require()


def test_another_winner_is_an_error_however_close() -> None:
    close = [[0.0, 9.0], [3.00001, 3.0]]
    other = [[0.0, 9.0], [3.0, 3.00001]]
    with pytest.raises(ParityError, match="same winner in 1 of 2 questions"):
        compare({"a": close, "b": other}, "float32").require()


def test_rewards_that_hardly_differ_show_nothing() -> None:
    flat = [[0.0, 0.0005]]
    with pytest.raises(ParityError, match="nothing can be told"):
        compare({"a": flat, "b": flat}, "float32").require()


@pytest.mark.slow
def test_trainer_and_transformers_agree_and_a_careless_export_is_found(tmp_path: Path) -> None:
    """transformers looks for the last token that is no pad, which is not the EOS if they equal."""
    for careless in (False, True):
        model = save_tiny_reward_model(tmp_path / f"model-{careless}", pad_is_eos=careless)
        encoder = Encoder.load(model)
        texts = ["a = 1", "a = 2\n" * 9, "", "x" * 400, "# no"]  # an odd number, one is cut
        questions = [make_question(encoder, 256, prompt, texts) for prompt in ("p", "q" * 90)]
        assert [len(ids) for ids in questions[0].response_ids][2:] == [1, 236, 5]
        found = compare(torch_rewards(model, "float32", questions), "float32")
        assert found.spread > 0.1
        if careless:
            with pytest.raises(ParityError, match="transformers and trainer"):
                found.require()
        else:
            found.require()


def test_questions_come_from_humaneval(tmp_path: Path) -> None:
    encoder = Encoder.load(save_tiny_reward_model(tmp_path / "model"))
    first, second = humaneval_questions(encoder, 4096, 2, 3)
    assert len(first.candidates) == len(set(first.candidates)) == 3
    assert first.candidates[1] == second.candidates[0]
    assert all(len(first.prompt_ids) + len(ids) <= 4096 for ids in first.response_ids)
    with pytest.raises(InputError, match="HumanEval has 164"):
        humaneval_questions(encoder, 512, 200, 3)
