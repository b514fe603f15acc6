"""Before weights load, a small model of the configuration is held against plain transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, LlamaConfig, T5Config

from benchmarks._families import FAMILIES, family
from codepmp_ray.errors import ModelError
from codepmp_ray.modeling import attention_cpu, paths
from codepmp_ray.modeling.attention_blocks import Block
from codepmp_ray.modeling.building import with_heads
from codepmp_ray.modeling.objectives import Name, make_objective
from codepmp_ray.modeling.parity import differences
from codepmp_ray.modeling.paths import TrainingPath, choose_path, probe_items, random_model
from codepmp_ray.modeling.small_config import small_configs
from tests.packed_models import SHAPE

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PMP = make_objective("pmp")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "family-checks"


@pytest.mark.parametrize("name", ["qwen2", "granite", "phi"])
def test_packing_is_right_also_with_scaled_logits_and_a_head_with_a_bias(name: str) -> None:
    assert choose_path(family(name).config(), PMP, CPU) == TrainingPath(is_packed=True)


@pytest.mark.parametrize("objective", ["pmp", "rm", "lm", "sft", "dpo"])
def test_every_objective_is_compared(objective: Name) -> None:
    assert choose_path(family("llama").config(), make_objective(objective), CPU).is_packed


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt_oss", "packed, it fails .*attention sinks"),
        pytest.param(
            *("qwen3_5_text", "packed, rewards differ by .*gradients differ by"),
            marks=pytest.mark.rehearsal,  # its recurrence takes seconds without a kernel
        ),
    ],
)
def test_what_packing_computes_wrongly_takes_the_plain_path(name: str, why: str) -> None:
    config = family(name).config()
    path = choose_path(config, PMP, CPU)
    assert not path.is_packed
    line = path.line("pretraining", config.model_type)
    assert line.startswith(
        f"pretraining: {name} trains on the plain path, an ordinary sequence for each answer"
    )
    assert re.search(why, line)


def test_what_no_path_computes_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="bert is no causal decoder: what a token computes"):
        choose_path(BertConfig(**SHAPE, is_decoder=False), PMP, CPU)
    with pytest.raises(ModelError, match="no causal language model for t5"):
        choose_path(T5Config(**SHAPE, d_model=48), PMP, CPU)


def test_a_wrong_attention_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers of an item but the first see one token of their prompt less."""
    blocks_of = attention_cpu.blocks_of

    def wrong(*arguments: Any) -> list[Block]:
        blocks = blocks_of(*arguments)
        for block in blocks:
            if block.mask is not None:
                block.mask[:, 0] = float("-inf")
        return blocks

    monkeypatch.setattr(attention_cpu, "blocks_of", wrong)
    path = choose_path(LlamaConfig(**SHAPE), PMP, CPU)
    assert not path.is_packed
    assert "rewards differ by" in path.reason and "L_LM differs by" in path.reason


def test_a_gradient_that_is_not_finite_is_a_difference() -> None:
    """max() passes a NaN over that does not come first."""
    causal_lm, made = (random_model(LlamaConfig(**SHAPE)) for _ in range(2))
    model = with_heads(made, PMP, is_packed=True)
    torch.nn.init.normal_(model.score.weight, std=0.02)
    pairs = probe_items(SHAPE["vocab_size"])
    assert differences(causal_lm, model, pairs)["gradients"] < 1e-3
    model.backbone.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    assert differences(causal_lm, model, pairs)["gradients"] == float("inf")


def test_a_window_that_packing_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,096 tokens in the configuration: the small model's is shorter than the pairs."""
    config = family("mistral").config()
    config.sliding_window = 4096
    blocks_of = attention_cpu.blocks_of
    monkeypatch.setattr(
        attention_cpu, "blocks_of", lambda layout, window, *rest: blocks_of(layout, None, *rest)
    )
    assert "L_LM differs by" in choose_path(config, PMP, CPU).reason


def test_what_was_found_is_kept_by_configuration_and_objective(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = family("llama").config()
    first = choose_path(config, PMP, CPU)
    (file,) = cache.iterdir()
    judge, judged = paths._judge, []
    monkeypatch.setattr(paths, "_judge", lambda *args: judged.append(args) or judge(*args))
    assert choose_path(family("llama").config(), PMP, CPU) == first
    assert not judged
    choose_path(config, make_objective("rm"), CPU)
    config.attention_bias = True
    choose_path(config, PMP, CPU)
    assert len(judged) == 2
    file.write_text("{")  # damaged
    choose_path(family("llama").config(), PMP, CPU)
    assert len(judged) == 3 and json.loads(file.read_text())["is_packed"]


def test_a_refusal_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertConfig(**SHAPE)
    with pytest.raises(ModelError) as first:
        choose_path(config, PMP, CPU)
    monkeypatch.setattr(paths, "_judge", lambda *args: pytest.fail("judged again"))
    with pytest.raises(ModelError, match="no causal decoder") as again:
        choose_path(config, PMP, CPU)
    assert str(again.value) == str(first.value)


def test_the_check_does_not_disturb_the_training_s_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    choose_path(family("llama").config(), PMP, CPU)
    assert torch.equal(torch.rand(4), expected)


def test_small_configurations_keep_every_kind_of_layer() -> None:
    for each in FAMILIES:
        config = each.config()
        small = next(small_configs(config))
        assert type(small) is type(config)
        assert small.vocab_size <= 128
        kinds = getattr(config, "layer_types", None)
        assert not kinds or set(small.layer_types) == set(kinds), each.name


def test_a_large_configuration_becomes_small() -> None:
    config = LlamaConfig(num_attention_heads=64, num_key_value_heads=8, num_hidden_layers=80)
    config.head_dim, config.hidden_size, config.intermediate_size = 128, 8192, 29568
    small = next(small_configs(config))
    assert (small.num_attention_heads, small.num_key_value_heads) == (8, 2)
    assert (small.num_hidden_layers, small.head_dim, small.hidden_size) == (2, 16, 128)
    assert config.num_hidden_layers == 80
