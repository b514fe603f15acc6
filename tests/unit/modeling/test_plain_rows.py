"""The plain path: the same sums as packed, by ordinary sequences."""

from __future__ import annotations

import copy

import pytest
import torch

from codepmp_ray.modeling.building import with_heads
from codepmp_ray.modeling.objectives import Name, make_objective
from codepmp_ray.modeling.paths import random_model
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import filler_batch, pack
from tests.packed_models import make_items, make_models

pytestmark = pytest.mark.slow


def in_rows(causal_lm: torch.nn.Module, packed: PreferenceModel) -> PreferenceModel:
    """The plain path over the same weights, with transformers' own attention."""
    other = copy.deepcopy(causal_lm)
    head = None if packed.lm_head is None else other.lm_head
    model = PreferenceModel(other.base_model, head, packed.objective, is_packed=False).double()
    model.load_state_dict(packed.state_dict())
    return model


@pytest.mark.parametrize("objective", ["pmp", "rm", "lm", "sft", "dpo"])
@pytest.mark.parametrize("name", ["qwen2-untied", "gemma2-tied", "opt"])
def test_sums_and_gradients_are_those_of_packed_pairs(name: str, objective: Name) -> None:
    causal_lm, packed = make_models(name, make_objective(objective))
    plain = in_rows(causal_lm, packed)
    sides = packed.objective.sides
    batch = pack(make_items(), sides=sides)
    counts = packed.objective.counts(make_items())
    found = []
    for model in (packed, plain):
        sums = model(batch)
        model.objective.loss(sums, counts).backward()
        found.append((sums, dict(model.named_parameters())))
    (sums, parameters), (sums_in_rows, in_rows_) = found
    assert sums.keys() == sums_in_rows.keys()
    for key, value in sums.items():
        assert torch.allclose(sums_in_rows[key], value, rtol=1e-9, atol=1e-9), key
    for key, parameter in parameters.items():
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert (in_rows_[key].grad - parameter.grad).abs().max() < 1e-9 * scale, key


def test_one_forward_for_each_micro_batch() -> None:
    """Ranks wait for each other at every block: all have to do as many forwards."""
    causal_lm, packed = make_models("llama-tied", make_objective("rm"))
    model = in_rows(causal_lm, packed)
    seen: list[dict] = []
    model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    model(pack(make_items()))
    model(filler_batch())
    assert len(seen) == 2
    assert seen[0]["input_ids"].shape[0] == 16


def test_padding_that_is_longer_than_the_window_leaves_the_gradients_alone() -> None:
    """A padded token that may see nothing but padding made them NaN."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING["granite_swa"](
        vocab_size=259,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        layer_types=["full_attention", "sliding_attention"],
        layer_rope_theta=[1e4, 1e4],
        pad_token_id=None,
    )
    pairs = [EncodedItem.of_pair("a", [*range(10, 13)], [*range(20, 50)], [60, 61])]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        causal_lm = random_model(config).to(dtype)
        model = with_heads(causal_lm, make_objective("pmp"), is_packed=False).to(dtype)
        torch.nn.init.normal_(model.score.weight, std=0.02)
        model.objective.loss(model(pack(pairs)), {"pair": 1, "token": 30}).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters()), dtype
