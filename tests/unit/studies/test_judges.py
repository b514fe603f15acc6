"""Judges, kinds of questions and code of answers: what Figures 12 and 13 and D.4.2 rest on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from codepmp_ray.config.study_materials import PoolConfig
from codepmp_ray.errors import InputError
from codepmp_ray.modeling.loading import load_tokenizer
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.studies.catalogue.abilities import kinds_of
from codepmp_ray.studies.catalogue.judging import debiased, preference_odds, verdicts
from codepmp_ray.studies.catalogue.texts import code_of
from codepmp_ray.studies.policies import answers, next_token_logits, pair_log_likelihoods
from codepmp_ray.studies.pools import answered_by


@pytest.fixture
def encoder(tiny_model_dir: Path) -> Encoder:
    tokenizer = load_tokenizer(str(tiny_model_dir))
    return Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, "auto", True))


def test_a_liking_for_a_place_gives_no_verdict_and_cancels_out() -> None:
    # Rows: always the first place, the first place a little, the chosen answer, no opinion.
    odds = np.array([[5.0, 5.0], [3.0, 1.0], [1.0, -2.0], [0.0, 0.0]])
    assert verdicts(odds) == (
        ["chosen", "chosen", "chosen", "tie"],
        ["rejected", "rejected", "chosen", "tie"],
    )
    assert debiased(odds) == ["tie", "chosen", "chosen", "tie"]


def test_logits_are_those_of_the_model_alone_with_each_prompt(
    encoder: Encoder, tiny_model_dir: Path
) -> None:
    prompts = ["a", "a longer prompt", "one of middle length"[:9], "b", "c c"]
    found = next_token_logits(tiny_model_dir, encoder, prompts, [5, 9])
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            alone = model(torch.tensor([encoder.prompt_ids(prompt)])).logits[0, -1, [5, 9]]
        assert row == pytest.approx(alone.numpy(), abs=1e-4)


def test_likelihoods_of_pairs_are_those_of_each_text_alone(
    encoder: Encoder, tiny_model_dir: Path
) -> None:
    prompts, chosen, rejected = ["p", "a longer prompt"], ["good", "one"], ["x", "another answer"]
    found = pair_log_likelihoods(tiny_model_dir, encoder, prompts, chosen, rejected)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    for i, prompt in enumerate(prompts):
        for side, text in enumerate((chosen[i], rejected[i])):
            head, (response,) = encoder.encode(prompt, [text]).split()
            body = response.ids
            with torch.no_grad():
                logs = model(torch.tensor([head + body])).logits[0].log_softmax(-1)
            alone = sum(logs[len(head) - 1 + j, token].item() for j, token in enumerate(body))
            assert found[i, side] == pytest.approx(alone, abs=1e-3)


def test_answers_are_those_of_each_prompt_alone(
    encoder: Encoder, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)  # or it says the same to everything
    model.save_pretrained(tmp_path)

    def shown(ids: torch.Tensor, **_: object) -> list[str]:  # most of the tokens are blank
        return [str(row.tolist()) for row in ids]

    monkeypatch.setattr(encoder.tokenizer, "batch_decode", shown)
    prompts = ["a much longer prompt than the others", "a", "one more"]
    together = answers(tmp_path, encoder, prompts, 6)
    assert together == [answers(tmp_path, encoder, [prompt], 6)[0] for prompt in prompts]
    assert len({made[0] for made in together}) > 1
    sampled = answers(tmp_path, encoder, prompts, 6, temperature=1.0, num_samples=3)
    assert [len(made) for made in sampled] == [3, 3, 3]


def test_both_orders_of_equal_answers_have_the_same_odds(
    encoder: Encoder, tiny_model_dir: Path
) -> None:
    row = {"prompt": "p", "messages": None, "chosen": "same", "rejected": "same"}
    other = row | {"messages": [{"role": "user", "content": "p"}], "rejected": "not the same"}
    odds = preference_odds(tiny_model_dir, encoder, [row, other])
    assert odds.shape == (2, 2)
    assert odds[0, 0] == pytest.approx(odds[0, 1]) and odds[1, 0] != pytest.approx(odds[1, 1])


def test_kinds_are_told_by_words() -> None:
    assert kinds_of("Ann pays $3 for 2 pens. How much are 5?") == {"money"}
    assert kinds_of("Half of 10% of 4 is?") == {"parts"}
    assert kinds_of("Twice each row, 1 2 3 4 5 times") == {"rates", "more or less", "many numbers"}
    assert kinds_of("word " * 60) == {"long"}
    assert kinds_of("What is 2 + 2?") == set()
    code = "Sort the list of words by their first character"
    assert kinds_of(code, is_code=True) == {"strings", "lists", "sorting"}


def test_code_of_an_answer_is_what_its_fences_hold() -> None:
    assert code_of("Here:\n```python\nx = 1\n```\nand\n```\ny\n```") == "x = 1\n\ny\n"
    assert code_of("def f(): pass") == "def f(): pass"


def test_generators_are_compared_on_questions_that_all_of_them_answered(tmp_path: Path) -> None:
    def answers(**correct: bool) -> list[dict]:
        return [{"text": m, "correct": c, "model": m} for m, c in correct.items()]

    rows = [
        {"question": "q1", "candidates": answers(a=True, b=False)},
        {"question": "q2", "candidates": answers(a=True)},
        {"question": "q3", "candidates": answers(b=True, a=False) + answers(a=True)},
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = PoolConfig(path="pool.jsonl")
    found = answered_by("p", pool, str(tmp_path), ("a", "b"))
    assert found.prompts == ["q1", "q3"]
    assert found.correct.tolist() == [[1.0, 0.0], [0.0, 1.0]]  # the first answer counts
    with pytest.raises(InputError, match=r"0 questions .* answers of a, b\."):
        answered_by("p", pool, str(tmp_path), ("a", "c"))
