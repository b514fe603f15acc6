"""Weights in and out: built without memory, filled from safetensors, exported for transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma2Config,
    LlamaConfig,
    Qwen2Config,
)

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.export import export_model, file_of_tensor
from codepmp_ray.modeling.loading import empty_model, load_preference_model
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.storage import LocalStore
from tests.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.slow

PMP, RM, SFT = (make_objective(name) for name in ("pmp", "rm", "sft"))
PAIR = EncodedItem.of_pair("a", [5, 6, 7], [8, 9], [10, 11, 12])


def config_of(name: str):
    shape = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return {
        "llama-tied": LlamaConfig(**shape, tie_word_embeddings=True),
        "qwen2-untied": Qwen2Config(**shape, tie_word_embeddings=False),
        "gemma2-tied": Gemma2Config(**shape, head_dim=8, tie_word_embeddings=True),
    }[name]


def save_base(folder: Path, name: str, **settings: object):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name))
    model.save_pretrained(folder, **settings)
    return model


def export(model, folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
    export_model(model, tokenizer, template, LocalStore(folder), torch.float32)


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "gemma2-tied"])
def test_weights_and_buffers_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    # In several files, as large models come.
    theirs = save_base(tmp_path / "base", name, max_shard_size="20KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    ours = load_preference_model(str(tmp_path / "base"), PMP, seed=3)
    expected = dict(theirs.base_model.state_dict())
    for key, value in ours.backbone.state_dict().items():
        assert value.equal(expected[key]), key
    hidden = theirs.base_model(torch.tensor([PAIR.prompt + PAIR.answers[0]])).last_hidden_state
    rewards = ours(pack([PAIR]))["rewards"]
    assert rewards[0].item() == pytest.approx(
        (hidden[0, -1] @ ours.score.weight[0]).item(), abs=1e-4
    )


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "gemma2-tied"])
def test_exports_load_in_transformers_and_here(tmp_path: Path, name: str) -> None:
    save_base(tmp_path / "base", name)
    model = load_preference_model(str(tmp_path / "base"), PMP, seed=3)
    rewards = model(pack([PAIR]))["rewards"]
    export(model, tmp_path / "rm")
    assert not [path for path in (tmp_path / "rm").iterdir() if path.is_dir()]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    for side, reward in zip(PAIR.answers, rewards, strict=True):
        logit = plain(torch.tensor([PAIR.prompt + side])).logits.item()
        assert logit == pytest.approx(reward.item(), abs=1e-4)
    again = load_preference_model(str(tmp_path / "rm"), RM, seed=99)
    assert torch.equal(again(pack([PAIR]))["rewards"], rewards)

    policy = load_preference_model(str(tmp_path / "base"), SFT, seed=3)
    export(policy, tmp_path / "policy")
    ids = torch.tensor([[5, 6, 7]])
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert torch.equal(exported(ids).logits, base(ids).logits)


def test_a_model_of_plain_prompts_has_no_chat_template(tmp_path: Path) -> None:
    """The base's own would render what was never trained."""
    save_base(tmp_path / "base", "llama-tied")
    model = load_preference_model(str(tmp_path / "base"), PMP, seed=0)
    tokenizer = tiny_tokenizer()
    assert tokenizer.chat_template
    template = PromptTemplate.from_tokenizer(tokenizer, "plain", append_eos=True)
    export_model(model, tokenizer, template, LocalStore(tmp_path / "rm"), torch.float32)
    exported = AutoTokenizer.from_pretrained(tmp_path / "rm")
    assert exported.chat_template is None
    assert Encoder.load(tmp_path / "rm").render_prompt("p") == "p\n"


def test_the_reward_head_is_drawn_from_the_seed(tmp_path: Path) -> None:
    save_base(tmp_path / "base", "llama-tied")
    first, same, other = (
        load_preference_model(str(tmp_path / "base"), RM, seed=seed).score.weight
        for seed in (1, 1, 2)
    )
    assert first.equal(same) and not first.equal(other)


def test_an_empty_model_takes_no_memory(tmp_path: Path) -> None:
    save_base(tmp_path / "base", "qwen2-untied")
    model = empty_model(str(tmp_path / "base"), PMP)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())


def damage(folder: Path, how: str) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    if how == "missing tensor":
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, file)
    elif how == "other shape":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    elif how == "cut file":
        file.write_bytes(file.read_bytes()[:1000])
    elif how == "pickle only":
        torch.save(weights, folder / "pytorch_model.bin")
        file.unlink()
    elif how == "config":
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing tensor", "no weights for layers.1.mlp.up_proj.weight"),
        ("other shape", r"shape \(48, 32\), its config.json says \(40, 32\)"),
        ("cut file", "cannot be loaded: model.safetensors"),
        ("pickle only", r"no \*\.safetensors files.*pickled weights are not loaded"),
        ("config", "Cannot load the model"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path: Path, how: str, message: str) -> None:
    save_base(tmp_path / "base", "qwen2-untied")
    damage(tmp_path / "base", how)
    with pytest.raises(ModelError, match=message):
        load_preference_model(str(tmp_path / "base"), RM, seed=0)


def test_a_reward_model_without_lm_head_is_refused_for_lm_objectives(tmp_path: Path) -> None:
    save_base(tmp_path / "base", "qwen2-untied")
    export(load_preference_model(str(tmp_path / "base"), PMP, seed=0), tmp_path / "rm")
    with pytest.raises(ModelError, match="without an LM head, which the objective pmp needs"):
        load_preference_model(str(tmp_path / "rm"), PMP, seed=0)


def test_files_are_cut_in_order_at_the_limit() -> None:
    sizes = {"a": 8, "b": 8, "c": 36, "d": 4, "e": 4}
    assert file_of_tensor(sizes, 16) == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3}
