"""Adapters: their gradients and sums, and what is refused before weights are loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, LlamaConfig, MixtralConfig, OPTConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from codepmp_ray.config.lora import LoraConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ConfigError, ModelError
from codepmp_ray.modeling.building import model_from_config
from codepmp_ray.modeling.lora import (
    add_adapters,
    initial_adapters,
    is_adapter,
    merge_adapters,
    plain_name,
    require_peft,
)
from codepmp_ray.modeling.lora_check import require_adaptable
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.paths import probe_items
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.packing import pack
from codepmp_ray.runs import stage_fingerprints

SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, attention_bias=True)
PMP = make_objective("pmp")


def with_peft() -> None:
    pytest.importorskip("peft", reason="an extra that the dev extra installs")


def model(lora: LoraConfig | None = None, objective: Any = PMP) -> PreferenceModel:
    torch.manual_seed(3)
    made = model_from_config(LLAMA, objective).double()
    if lora is not None:
        add_adapters(made, lora)
        with torch.no_grad():
            for parameter, value in initial_adapters(made, 0):
                parameter.copy_(value)
    return made.double()


def backward(own: PreferenceModel) -> torch.Tensor:
    items = probe_items(LLAMA.vocab_size)
    sums = own(pack(items, sides=PMP.sides))
    PMP.loss(sums, PMP.counts(items)).backward()
    return sums["rewards"].detach()


def test_gradients_are_those_of_the_whole_weights_seen_through_the_other_factor() -> None:
    """At the beginning, where B is zero: dL/dB = alpha / r x dL/dW A^T, in packs as anywhere."""
    with_peft()
    whole, own = model(), model(LoraConfig(r=4, lora_alpha=6))
    assert backward(own).equal(backward(whole))
    theirs = dict(whole.named_parameters())
    mine = dict(own.named_parameters())
    num_checked = 0
    for name, b in mine.items():
        if not name.endswith(".lora_B.default.weight"):
            continue
        a = mine[name.replace("lora_B", "lora_A")]
        weight = theirs[plain_name(name).replace(".lora_B.default", "")]
        assert weight.grad is not None and b.grad is not None
        torch.testing.assert_close(b.grad, 1.5 * weight.grad @ a.T, rtol=1e-9, atol=1e-12)
        num_checked += 1
    assert num_checked == 2 * 7
    trained = {name for name, parameter in mine.items() if parameter.requires_grad}
    assert trained == {name for name in mine if is_adapter(name)} | {"score.weight"}
    assert all(mine[name].grad is None for name in mine.keys() - trained)
    assert own.score is not None and whole.score is not None
    torch.testing.assert_close(own.score.weight.grad, whole.score.weight.grad)


def test_merging_changes_the_weights_and_not_the_rewards() -> None:
    with_peft()
    own = model(LoraConfig(r=4))
    with torch.no_grad():
        for parameter, value in initial_adapters(own, 1):
            parameter.copy_(value + 0.05 * torch.randn(value.shape))
        items = probe_items(LLAMA.vocab_size)
        before = {name: value.clone() for name, value in own.named_parameters()}
        expected = own(pack(items))["rewards"]
        for _ in range(2):  # twice is once
            merge_adapters(own)
            torch.testing.assert_close(own(pack(items))["rewards"], expected, rtol=0, atol=1e-9)
    changed = [name for name, value in own.named_parameters() if not value.equal(before[name])]
    assert len(changed) == 2 * 2 * 7  # W and B
    assert all(".base_layer.weight" in name or "lora_B" in name for name in changed)


def test_named_layers_alone_get_adapters() -> None:
    with_peft()
    own = model(LoraConfig(target_modules=("q_proj", "v_proj")))
    names = [name for name, _ in own.named_parameters() if is_adapter(name)]
    assert len(names) == 2 * 2 * 2 and all("q_proj" in name or "v_proj" in name for name in names)


def test_families_that_peft_finds_are_taken() -> None:
    with_peft()
    opt = OPTConfig(**SIZES, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32)
    for config in (LLAMA, opt):
        require_adaptable(config, PMP, LoraConfig(), is_packed=True)


@pytest.mark.parametrize(
    ("config", "lora", "words"),
    [
        (GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4), {}, "gpt2.*c_attn.weight"),
        (
            MixtralConfig(**SIZES, intermediate_size=48, num_key_value_heads=2),
            {},
            "mixtral.*experts",
        ),
        (LLAMA, {"target_modules": ["q_proj", "query"]}, "'query'.*llama"),
        (LLAMA, {"target_modules": ["norm"]}, "'norm'"),
        (LLAMA, {"target_modules": ["self_attn"]}, "'self_attn'"),
    ],
)
def test_what_would_get_no_adapter_is_refused_by_name(config: Any, lora: dict, words: str) -> None:
    with_peft()
    with pytest.raises(ModelError, match=words):
        add_adapters(model_from_config(config, PMP), LoraConfig.model_validate(lora))


def test_a_family_that_does_not_call_its_layers_is_refused(monkeypatch) -> None:
    with_peft()

    def around(self: Any, x: torch.Tensor) -> torch.Tensor:
        up = F.linear(x, self.up_proj.weight)
        return self.down_proj(self.act_fn(self.gate_proj(x)) * up)

    monkeypatch.setattr(LlamaMLP, "forward", around)
    with pytest.raises(ModelError, match=r"llama.*layers\.0\.mlp\.up_proj.*no gradient"):
        require_adaptable(LLAMA, PMP, LoraConfig(), is_packed=True)


def test_without_peft_the_way_to_get_it_is_said(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("codepmp_ray.modeling.lora.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"peft is not installed.*codepmp-ray\[lora\]"):
        require_peft()


@pytest.mark.parametrize("objective", ["lm", "sft", "dpo"])
def test_other_objectives_train_all_weights(objective: str) -> None:
    with pytest.raises(ValueError, match=f"objective=pmp or rm, not {objective}"):
        TrainingConfig.model_validate({"lora": {}, "objective": objective})


def test_adapters_are_part_of_the_fingerprint_and_their_absence_is_not() -> None:
    prints = [
        stage_fingerprints(parse_recipe({"pretraining": own}, "test"))["pretraining"]
        for own in ({}, {"lora": None}, {"lora": {}}, {"lora": {"r": 8}}, {"lora": {"r": 16}})
    ]
    assert prints[0] == prints[1] and prints[2] == prints[4]
    assert len({*prints}) == 3
