"""A reward model of others: an encoder as the DeBERTa scorer, or a decoder; safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
)

from codepmp_ray.errors import ModelError
from codepmp_ray.studies import external_scorer
from codepmp_ray.studies.catalogue import policies as catalogue
from codepmp_ray.studies.external_scorer import external_rewards, require_scorer
from codepmp_ray.studies.study import Context
from tests.tiny_models import save_tiny_base_model, save_tiny_reward_model, tiny_tokenizer
from tests.unit.studies.conftest import MakeBench

QUESTIONS = [f"question {i}" for i in range(19)]  # more than are scored at once
TEXTS = ["word " * (1 + 7 * i % 11) for i in range(19)]


def save_tiny_deberta(folder: Path, **changes: Any) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 96,
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        "type_vocab_size": 0, "pooler_hidden_size": 32, "initializer_range": 0.3, "num_labels": 1,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = DebertaV2Config(**(fields | changes))
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("save", [save_tiny_reward_model, save_tiny_deberta])
def test_rewards_are_those_of_one_row_at_a_time(tmp_path: Path, save: Any) -> None:
    folder = save(tmp_path / "scorer")
    found = external_rewards(str(folder), QUESTIONS, TEXTS)
    assert found.shape == (19,) and len(set(found.round(6))) > 10
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for i in (0, 4, 15, 16, 18):
        with torch.no_grad():
            alone = model(**tokenizer(QUESTIONS[i], TEXTS[i], return_tensors="pt")).logits[0, 0]
        assert found[i] == pytest.approx(float(alone), abs=1e-4)


def test_long_texts_are_cut_to_what_the_scorer_has_positions_for(tmp_path: Path) -> None:
    folder = save_tiny_deberta(tmp_path / "scorer")
    (found,) = external_rewards(str(folder), ["q"], ["word " * 100])
    (shorter,) = external_rewards(str(folder), ["q"], ["word " * 50])
    assert found == pytest.approx(shorter, abs=1e-6)  # both are cut at 96 tokens


def test_what_is_no_reward_model_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    labels = save_tiny_deberta(tmp_path / "labels", num_labels=3)
    headless = save_tiny_base_model(tmp_path / "headless")
    pickled = save_tiny_deberta(tmp_path / "pickled")
    model = AutoModelForSequenceClassification.from_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    damaged = save_tiny_deberta(tmp_path / "damaged")
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    for folder, words in (
        (labels, "has 3 labels"),
        (headless, "has [23] labels|no weights for score.weight"),
        (pickled, "cannot be loaded.*safetensors.*pickle"),
        (damaged, "damaged cannot be loaded"),
        (tmp_path / "nothing", "nothing.*does not exist"),
    ):
        with pytest.raises(ModelError, match=words):
            require_scorer(str(folder))


def test_a_decoder_without_one_label_in_its_config_gets_no_random_head(tmp_path: Path) -> None:
    folder = save_tiny_base_model(tmp_path / "base")
    config = AutoModelForSequenceClassification.from_pretrained(
        save_tiny_reward_model(tmp_path / "rm")
    ).config
    config.save_pretrained(folder)  # says one label, but there are no weights for it
    with pytest.raises(ModelError, match=r"no weights for score\.weight.*random"):
        require_scorer(str(folder))


def test_a_folder_scores_without_the_hub_and_a_hub_id_only_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(external_scorer, "is_hub_reachable", lambda: False)
    folder = str(save_tiny_deberta(tmp_path / "scorer"))
    assert external_scorer.available_scorer(folder) == folder
    assert (
        external_scorer.available_scorer("someone/scorer")
        is None
        is external_scorer.available_scorer(None)
    )
    monkeypatch.setattr(external_scorer, "is_hub_reachable", lambda: True)
    assert external_scorer.available_scorer("someone/scorer") == "someone/scorer"
    assert external_scorer.scorer_name("someone/scorer") == "someone/scorer"
    assert external_scorer.scorer_name(folder) == "scorer"


def test_a_scorer_is_looked_at_before_training_and_its_content_is_part_of_the_study(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    missing = make_bench(studies={"seed004": {"scorer": str(tmp_path / "none")}})
    with pytest.raises(ModelError, match="none"):
        catalogue.arms(Context("seed004", missing, missing.config.options("seed004")))
    folder = save_tiny_deberta(tmp_path / "scorer")
    bench = make_bench(studies={"seed004": {"scorer": str(folder)}})
    before = bench.study_key("seed004", [])
    assert before == bench.study_key("seed004", [])
    save_tiny_deberta(folder, initializer_range=0.1)
    assert bench.study_key("seed004", []) != before
    assert external_scorer.external_rewards(str(folder), ["q"], ["t"]).shape == (1,)
