"""Memory of a step without memory: exact for what can be counted by hand, honest about the rest."""

from __future__ import annotations

import time
from functools import cache

import pytest
from transformers import LlamaConfig, Qwen2Config

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ResourceError
from codepmp_ray.training import memory_plan
from codepmp_ray.training.memory_plan import MemoryPlan, plan_memory, remedies

pytestmark = pytest.mark.slow

SMALL = LlamaConfig(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
# Qwen2-72B, as its config.json has it.
QWEN2_72B = Qwen2Config(
    vocab_size=152064,
    hidden_size=8192,
    intermediate_size=29568,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    tie_word_embeddings=False,
)


def config(**changes) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {"num_workers": 4, "max_length": 64, "max_tokens_per_micro_batch": 192, **changes}
    )


@cache
def plan_small(**changes) -> MemoryPlan:
    return plan_memory(config(**changes), SMALL)


def test_resident_state_is_four_bytes_and_eight_of_adam_per_parameter_and_rank() -> None:
    plan = plan_small(objective="rm")
    block = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    assert plan.num_parameters == 1000 * 64 + 64 + 64 + 6 * block
    share = 4 * plan.num_parameters / 4
    # Shards are padded to equal sizes, and Adam keeps its step counters.
    assert plan.by_kind["parameters"] == pytest.approx(share, rel=0.01)
    assert plan.by_kind["gradients"] == pytest.approx(share, rel=0.01)
    assert plan.by_kind["optimizer"] == pytest.approx(2 * share, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_further_blocks_cost_is_extrapolated_exactly(checkpointing: bool) -> None:
    settings = config(gradient_checkpointing=checkpointing)
    whole = memory_plan._measure(settings, SMALL, 6)
    plan = plan_small(gradient_checkpointing=checkpointing)
    assert plan.num_parameters == whole.parameters
    for kind, num_bytes in whole.bytes.items():
        assert plan.by_kind[kind] == pytest.approx(num_bytes, rel=0.01, abs=2048), kind


def test_checkpointing_and_workers_take_what_they_should() -> None:
    base = plan_small()
    checkpointed = plan_small(gradient_checkpointing=True)
    assert checkpointed.by_kind["activations"] < base.by_kind["activations"] / 3
    wider = plan_small(num_workers=8)
    assert wider.by_kind["optimizer"] == pytest.approx(base.by_kind["optimizer"] / 2, rel=0.02)
    assert wider.by_kind["activations"] == base.by_kind["activations"]
    # Two copies of the model on four ranks each hold what two ranks would.
    copies = plan_small(data_parallel_replicate_degree=2)
    assert copies.by_kind["optimizer"] == pytest.approx(2 * base.by_kind["optimizer"], rel=0.02)


def test_offloading_moves_what_lies_still_to_the_host() -> None:
    base = plan_small()
    offloaded = plan_small(cpu_offload=True)
    assert offloaded.on_host == pytest.approx(16 * base.num_parameters / 4, rel=0.02)
    assert sum(base.by_kind.values()) - sum(offloaded.by_kind.values()) == offloaded.on_host
    assert offloaded.by_kind["activations"] == base.by_kind["activations"]
    assert base.on_host == 0


def test_logits_are_those_of_a_chunk() -> None:
    def logits(**changes) -> int:
        return memory_plan._logits_of_a_chunk(config(**changes), SMALL)

    # Three parts of 64 tokens fill a micro-batch of 192; the LM loss is over one of them.
    assert logits(max_length=128) == plan_small(max_length=128).logits == 64 * 1000 * (2 + 4)
    assert logits(bf16=False) == 2 * 32 * 1000 * (4 + 4)
    assert logits(objective="rm") == 0
    assert logits(max_length=2048, max_tokens_per_micro_batch=8192) == 512 * 1000 * (2 + 4)


@pytest.mark.rehearsal
def test_a_72b_is_planned_in_seconds_and_told_what_would_fit() -> None:
    started_s = time.monotonic()
    settings = config(num_workers=16, max_length=1024, max_tokens_per_micro_batch=8192)
    plan = plan_memory(settings, QWEN2_72B, "h100-80gb")
    assert plan.num_parameters == pytest.approx(72.7e9, rel=0.01)
    assert not plan.fits
    found = remedies(settings, QWEN2_72B, "h100-80gb")
    assert found and all(other.fits for _, other in found)
    assert any("gradient_checkpointing=true" in change for change, _ in found)
    assert time.monotonic() - started_s < 120


def test_an_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ResourceError, match=r"'h1000'.*h100-80gb"):
        plan_memory(config(), SMALL, "h1000")


QWEN2_1_5B = Qwen2Config(
    vocab_size=151936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)


@pytest.mark.parametrize("objective", ["pmp", "rm"])
def test_adapters_need_at_most_half_of_what_all_weights_need(objective: str) -> None:
    """Of the whole peak of a 1.5B on one GPU, activations and logits included."""
    pytest.importorskip("peft", reason="an extra that the dev extra installs")
    common = {"objective": objective, "num_workers": 1, "max_length": 1024}
    common |= {"max_tokens_per_micro_batch": 2048}
    whole = plan_memory(config(**common), QWEN2_1_5B)
    adapted = plan_memory(config(**common, lora={}), QWEN2_1_5B)
    assert adapted.total <= 0.5 * whole.total, (adapted, whole)
    per_layer = 1536 * 16 * 2 * 2 + (1536 + 256) * 16 * 2 + (1536 + 8960) * 16 * 3
    num_adapters = 28 * per_layer
    assert adapted.num_parameters == whole.num_parameters + num_adapters
    # Weights are there as before; of gradients and moments only those of adapters and head.
    trained = 4 * (num_adapters + 1536)
    assert adapted.by_kind["gradients"] == pytest.approx(trained, rel=0.01)
    assert adapted.by_kind["optimizer"] == pytest.approx(2 * trained, rel=0.01)
