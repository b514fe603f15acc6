"""Families of the plain path train like others: one worker or two, resumed, exported, warm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks._families import family
from codepmp_ray.modeling.paths import random_model
from codepmp_ray.scoring.torch_scorer import TorchScorer
from tests.multiprocess.test_training_exactness import run
from tests.tiny_models import tiny_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]
NAMES = (
    *("qwen3_moe", "deepseek_v2", "olmoe", "gpt_oss", "mixtral"),
    *("qwen3_5_text", "qwen3_next", "gemma3_text", "gpt_neox", "stablelm", "nemotron", "granite"),
)


def save(name: str, folder: Path) -> Path:
    random_model(family(name).config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def weights(out_dir: Path) -> dict[str, torch.Tensor]:
    files = [load_file(file) for file in (out_dir / "model").glob("*.safetensors")]
    return {key: value for tensors in files for key, value in tensors.items()}


@pytest.mark.parametrize("name", NAMES)
def test_workers_and_kills_do_not_change_the_result(
    name: str, tmp_path: Path, preference_rows: list[dict]
) -> None:
    model = save(name, tmp_path / "base")
    one = run(tmp_path / "one", model, preference_rows, 1)
    two = run(tmp_path / "two", model, preference_rows, 2)
    assert [row["loss"] for row in two if "loss" in row] == pytest.approx(
        [row["loss"] for row in one if "loss" in row], rel=1e-3
    )
    run(tmp_path / "killed", model, preference_rows, 2, die_at=5)
    run(tmp_path / "killed", model, preference_rows, 2)
    whole, resumed = weights(tmp_path / "two"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    scorer = TorchScorer.load(tmp_path / "one/model", max_model_len=256)
    first, second = scorer.rewards([40, 41, 42], [[50, 51], [60]])
    assert first != second
    warm = run(tmp_path / "warm", tmp_path / "one/model", preference_rows, 1, objective="rm")
    assert warm[-1]["step"]
