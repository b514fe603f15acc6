"""Whole trainings on one GPU: exact after a SIGKILL, as the CPU's, offloaded, exported."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from codepmp_ray.storage import LocalStore
from tests.multiprocess.test_training_exactness import losses, run, weights

EXACT = {"full_determinism": True, "on_gpu": True}


@pytest.mark.parametrize("bf16", [False, True])
def test_sigkill_in_mid_epoch_and_resume_gives_the_same_bits(
    bf16: bool, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = {**EXACT, "bf16": bf16}
    expected = run(whole, tiny_model_dir, preference_rows, 1, **settings)
    run(killed, tiny_model_dir, preference_rows, 1, die_at=4, **settings)
    # Asynchronous: step 2's is whole, step 4's may be.
    assert any(".json" in name for name in LocalStore(killed).list("checkpoints"))
    assert not (killed / "model").exists()
    assert losses(run(killed, tiny_model_dir, preference_rows, 1, **settings)) == losses(expected)
    ours, theirs = weights(killed), weights(whole)
    assert set(ours) == set(theirs)
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_a_gpu_gives_the_losses_of_a_cpu(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    """fp32 on both; the GPU's steps are compiled."""
    there = run(tmp_path / "gpu", tiny_model_dir, preference_rows, 1, on_gpu=True)
    here = run(tmp_path / "cpu", tiny_model_dir, preference_rows, 1)
    for step, loss in losses(here).items():
        assert losses(there)[step] == pytest.approx(loss, abs=1e-4), step


@pytest.mark.parametrize("change", [{"cpu_offload": True}, {"gradient_checkpointing": True}])
def test_what_saves_memory_changes_nothing(
    change: dict, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    settings = {"on_gpu": True, "max_steps": 4}
    plain = run(tmp_path / "plain", tiny_model_dir, preference_rows, 1, **settings)
    saving = run(tmp_path / "saving", tiny_model_dir, preference_rows, 1, **settings, **change)
    for step, loss in losses(plain).items():
        assert losses(saving)[step] == pytest.approx(loss, abs=1e-4), step


@pytest.mark.parametrize("objective", ["rm", "sft", "dpo"])
def test_every_objective_trains_in_bf16(
    objective: str, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    settings = {"on_gpu": True, "max_steps": 6, "bf16": True, "learning_rate": 3e-3}
    rows = run(tmp_path, tiny_model_dir, preference_rows, 1, objective=objective, **settings)
    curve = list(losses(rows).values())
    assert all(map(math.isfinite, curve)) and curve[-1] < curve[0]


def test_the_export_gives_the_trainers_rewards_in_plain_transformers(
    tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    from transformers import AutoModelForSequenceClassification

    from codepmp_ray.modeling.loading import load_preference_model
    from codepmp_ray.modeling.objectives import make_objective
    from codepmp_ray.preference.items import EncodedItem
    from codepmp_ray.preference.packing import pack
    from codepmp_ray.preference.tokenization import Encoder

    run(tmp_path, tiny_model_dir, preference_rows, 1, on_gpu=True)
    encoder = Encoder.load(tmp_path / "model")
    prompt, responses = encoder.encode("Add 3 to the input.", ["return x + 3", "pass"]).split()
    sides = [response.ids for response in responses]
    gpu = torch.device("cuda")
    ours = load_preference_model(str(tmp_path / "model"), make_objective("rm"), seed=0).to(gpu)
    packed = ours(pack([EncodedItem.of_pair("a", prompt, *sides)]).to(gpu))["rewards"]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    for side, reward in zip(sides, packed.tolist(), strict=True):
        assert plain(torch.tensor([prompt + side])).logits.item() == pytest.approx(reward, abs=1e-4)
