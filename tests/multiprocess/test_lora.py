"""LoRA on real processes: workers and kills change nothing, and each export is the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint_folders import folder_of, whole_steps
from codepmp_ray.training.loop import ADAPTER_FOLDER
from tests.multiprocess.test_training_exactness import losses, run, weights

pytest.importorskip("peft", reason="an extra that the dev extra installs")

LORA = {"lora": {"r": 4, "lora_alpha": 8}, "learning_rate": 1e-2}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapters(out_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(out_dir / ADAPTER_FOLDER / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, preference_rows: list[dict]
) -> tuple[Path, list[dict]]:
    out_dir = tmp_path_factory.mktemp("lora") / "two ranks"
    return out_dir, run(out_dir, tiny_model_dir, preference_rows, 2, **LORA)


def test_adapters_and_head_are_trained_and_all_else_is_the_base(
    trained, tiny_model_dir: Path
) -> None:
    out_dir, rows = trained
    curve = losses(rows)
    assert min(list(curve.values())[-3:]) < curve[1]
    base = load_file(tiny_model_dir / "model.safetensors")
    merged = weights(out_dir)
    for name, tensor in base.items():
        change = (merged[name] - tensor).float()
        if any(f"{layer}.weight" in name for layer in LINEAR):
            assert change.abs().max() > 1e-4, name
            assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 4, name
        elif name != "lm_head.weight":
            assert not change.any(), name
    kept = adapters(out_dir)
    assert len(kept) == 2 * 2 * len(LINEAR) + 1  # two layers, A and B, and the head
    assert kept["base_model.model.score.weight"].equal(merged["score.weight"])


def test_a_kill_and_a_resume_give_the_same_bits_out_of_adapters_and_head_alone(
    trained, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    expected_dir, expected_rows = trained
    run(tmp_path, tiny_model_dir, preference_rows, 2, die_at=5, **LORA)
    store = LocalStore(tmp_path)
    folder = store.path(folder_of(store, max(whole_steps(store))))
    held = FileSystemReader(folder).read_metadata().state_dict_metadata
    parameters = {key.removeprefix("model.") for key in held if key.startswith("model.")}
    assert parameters and all("lora_" in key or key == "score.weight" for key in parameters)
    assert not any("base_layer" in key or "embed" in key for key in held)
    rows = run(tmp_path, tiny_model_dir, preference_rows, 2, **LORA)
    assert losses(rows) == losses(expected_rows)
    for read in (weights, adapters):
        ours, theirs = read(tmp_path), read(expected_dir)
        assert set(ours) == set(theirs)
        assert all(ours[name].equal(theirs[name]) for name in ours)


def test_one_worker_gives_the_same_losses(
    trained, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]
) -> None:
    rows = run(tmp_path, tiny_model_dir, preference_rows, 1, **LORA)
    for step, loss in losses(trained[1]).items():
        assert losses(rows)[step] == pytest.approx(loss, abs=1e-4), step


def test_merged_and_adapter_exports_give_the_rewards_of_the_trainer(
    trained, tmp_path: Path, tiny_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from codepmp_ray.modeling.loading import load_preference_model
    from codepmp_ray.modeling.objectives import make_objective
    from codepmp_ray.preference.items import EncodedItem
    from codepmp_ray.preference.packing import pack
    from codepmp_ray.preference.tokenization import Encoder

    out_dir, _ = trained
    folder = out_dir / ADAPTER_FOLDER
    told = json.loads((folder / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(tiny_model_dir)
    assert (told["r"], told["lora_alpha"], told["lora_dropout"]) == (4, 8, 0)
    assert set(told["target_modules"]) == set(LINEAR)
    encoder = Encoder.load(out_dir / "model")
    prompt, responses = encoder.encode("Add 3 to the input.", ["return x + 3", "pass"]).split()
    sides = [response.ids for response in responses]
    ours = load_preference_model(str(out_dir / "model"), make_objective("rm"), seed=0)
    packed = ours(pack([EncodedItem.of_pair("a", prompt, *sides)]))["rewards"].tolist()
    plain = AutoModelForSequenceClassification.from_pretrained(out_dir / "model")
    pad_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    base = AutoModelForSequenceClassification.from_pretrained(
        tiny_model_dir, num_labels=1, problem_type="regression", pad_token_id=pad_id
    )
    # In another place: nothing in it says where the training's folder was.
    adapted = PeftModel.from_pretrained(base, shutil.copytree(folder, tmp_path / "moved")).eval()
    assert abs(packed[0] - packed[1]) > 1e-3
    with torch.no_grad():
        for side, reward in zip(sides, packed, strict=True):
            ids = torch.tensor([prompt + side])
            assert plain(ids).logits.item() == pytest.approx(reward, abs=1e-5)
        # Both in fp64: what differs is what was written, not the order of sums.
        plain, adapted = plain.double(), adapted.double()
        for side in sides:
            ids = torch.tensor([prompt + side])
            assert adapted(ids).logits.item() == pytest.approx(plain(ids).logits.item(), abs=1e-5)
