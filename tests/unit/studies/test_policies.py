"""Prompts of the test part, the best and worst of sampled answers, and a scorer of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codepmp_ray.errors import InputError, ModelError
from codepmp_ray.studies.catalogue import policies as catalogue
from codepmp_ray.studies.policies import best_and_worst, external_rewards
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.study import Context
from tests.tiny_models import save_tiny_reward_model
from tests.unit.studies.conftest import MakeBench, write_rows

JUDGE = Trained("key", "judge", Path(), "trend")


class LengthBook:
    """Rewards are lengths, and what was asked is kept."""

    def rewards(self, model: Trained, prompts: Any, texts: Any) -> np.ndarray:
        self.asked = list(zip(prompts, texts, strict=True))
        return np.array([float(len(text)) for text in texts])


def test_the_best_and_the_worst_answer_to_each_prompt_make_a_pair() -> None:
    book = LengthBook()
    sampled = [["aa", "a", "aaa", "aa"], ["same", "same"], ["b", " ", ""], ["", "long one", "c"]]
    found = best_and_worst(cast(ScoreBook, book), JUDGE, ["p0", "p1", "p2", "p3"], sampled)
    assert found == [
        {"prompt": "p0", "chosen": "aaa", "rejected": "a"},
        {"prompt": "p3", "chosen": "long one", "rejected": "c"},
    ]
    # Blank and repeated answers, and prompts with one answer, are not scored.
    assert book.asked == [
        ("p0", "aa"), ("p0", "a"), ("p0", "aaa"), ("p3", "long one"), ("p3", "c"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"two different answers.*temperature"):
        best_and_worst(cast(ScoreBook, book), JUDGE, ["p"], [["x", "x", " "]])


def test_prompts_are_of_the_test_part_and_each_comes_once(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench()
    rows = [
        {"prompt": f"p{i // 3}", "chosen": f"yes {i}", "rejected": f"no {i}", "pair_id": str(i)}
        for i in range(90)
    ]
    write_rows(tmp_path / "sums.jsonl", rows)
    context = Context("seed004", bench, bench.config.options("seed004"))
    tested = {row["prompt"] for row in bench.set("sums").test}
    found = catalogue.test_prompts(context, "sums", 5)
    assert len(found) == len(set(map(str, found))) == 5 and set(map(str, found)) <= tested
    every = catalogue.test_prompts(context, "sums", 1000)
    assert set(map(str, every)) == tested and every[:5] == found


def test_rewards_of_a_scorer_do_not_depend_on_what_stands_beside(tmp_path: Path) -> None:
    folder = save_tiny_reward_model(tmp_path / "scorer")
    questions = [f"question {i}" for i in range(19)]  # more than are scored at once
    texts = ["word " * (1 + 7 * i % 11) for i in range(19)]
    found = external_rewards(str(folder), questions, texts)
    assert found.shape == (19,) and len(set(found.round(6))) > 10
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for i in (0, 4, 15, 16, 18):
        with torch.no_grad():
            alone = model(**tokenizer(questions[i], texts[i], return_tensors="pt")).logits[0, 0]
        assert found[i] == pytest.approx(float(alone), abs=1e-4)
    with pytest.raises(ModelError, match="nothing"):
        external_rewards(str(tmp_path / "nothing"), ["q"], ["t"])
