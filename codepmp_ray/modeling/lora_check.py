"""Whether a family computes with its adapters, before weights are loaded: a small model of its
configuration has to give the same rewards with adapters and merged, and each adapter a gradient.

A family may read a layer's weight without calling the layer; its adapter would change nothing.
"""

from __future__ import annotations

from typing import Any

import torch

from codepmp_ray.config.lora import LoraConfig
from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.building import with_heads
from codepmp_ray.modeling.export import require_exportable
from codepmp_ray.modeling.lora import (
    add_adapters,
    initial_adapters,
    is_adapter,
    merge_adapters,
    plain_name,
)
from codepmp_ray.modeling.objectives import Objective
from codepmp_ray.modeling.paths import (
    VALUES_WITHIN,
    probe_items,
    random_model,
    working_small_config,
)
from codepmp_ray.preference.packing import pack

_REMEDY = "Leave lora out and train all weights, or choose another backbone."


def require_adaptable(
    config: Any, objective: Objective, lora: LoraConfig, *, is_packed: bool
) -> None:
    """Raise ModelError, which names what is wrong, for a family that `lora` would not train.

    Seconds, on the CPU. Raises ConfigError without peft.
    """
    small = working_small_config(config, torch.device("cpu"))
    model = with_heads(random_model(small), objective, is_packed=is_packed)
    add_adapters(model, lora)
    require_exportable(model)
    generator = torch.Generator().manual_seed(1)
    assert model.score is not None  # of pmp and rm
    with torch.no_grad():
        for parameter, value in initial_adapters(model, 0):
            # B as well: zeros would be no difference.
            parameter.copy_(value + 0.1 * torch.randn(value.shape, generator=generator))
        model.score.weight.normal_(std=model.score.weight.shape[1] ** -0.5, generator=generator)
    items = probe_items(small.vocab_size)
    batch = pack(items, sides=objective.sides)
    sums = model(batch)
    objective.loss(sums, objective.counts(items)).backward()
    adapters = {name: p for name, p in model.named_parameters() if is_adapter(name)}
    without = [name for name, p in adapters.items() if p.grad is None or not p.grad.any()]
    if without:
        layers = sorted({plain_name(name).split(".lora_")[0] for name in without})
        raise ModelError(
            f"{small.model_type} does not train the adapters of {', '.join(layers[:3])}: no "
            "gradient reaches them.",
            _REMEDY,
        )
    with torch.no_grad():
        merge_adapters(model)
        merged = model(batch)["rewards"]
    expected = sums["rewards"].detach()
    difference = float((merged - expected).abs().max() / expected.abs().max())
    if not difference <= VALUES_WITHIN:
        raise ModelError(
            f"{small.model_type}: rewards with merged adapters differ by {difference:.1e} from "
            f"those with adapters (limit {VALUES_WITHIN:.0e}).",
            _REMEDY,
        )
