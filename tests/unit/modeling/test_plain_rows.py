"""The plain path: the same sums as packed, by ordinary sequences."""

from __future__ import annotations

import copy

import pytest
import torch

from codepmp_ray.modeling.objectives import Name, make_objective
from codepmp_ray.modeling.preference_model import PreferenceModel
from codepmp_ray.preference.packing import filler_batch, pack
from tests.packed_models import make_models, make_pairs

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
    batch = pack(make_pairs(), sides=sides)
    counts = {"pair": 4, "token": 28}
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


def test_one_forward_for_each_micro_batch_and_no_mask_without_padding() -> None:
    """Ranks wait for each other at every block: all have to do as many forwards."""
    causal_lm, packed = make_models("llama-tied", make_objective("rm"))
    model = in_rows(causal_lm, packed)
    seen: list[dict] = []
    model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    model(pack(make_pairs()))
    model(filler_batch())
    assert len(seen) == 2
    assert seen[0]["input_ids"].shape[0] == 8
    assert seen[0]["attention_mask"].sum() == sum(
        2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in make_pairs()
    )
    assert seen[1]["attention_mask"] is None
