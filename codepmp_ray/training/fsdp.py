"""FSDP2 around a PreferenceModel: one group per block, one for the fp32 head, one for the rest."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.preference_model import PreferenceModel


def shard(model: PreferenceModel, config: TrainingConfig, mesh: DeviceMesh) -> PreferenceModel:
    """Shard `model` in place over `mesh`; parameters stay fp32, blocks compute in bf16 if asked.

    The LM head stays in the root group, which remains gathered through forward and backward: ranks
    with different numbers of LM chunks would otherwise gather it a different number of times.
    """
    compute = torch.bfloat16 if config.bf16 else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    layers = getattr(model.backbone, "layers", None)
    if layers is None:
        raise ModelError(
            f"{type(model.backbone).__name__} has no `layers` to shard by.",
            "Choose a Llama or Qwen backbone.",
        )
    if config.gradient_checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    if model.score is not None:
        precise = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
        fully_shard(model.score, mesh=mesh, mp_policy=precise)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            # Losses are sums divided by global counts, so gradients add up over ranks, unaveraged.
            module.set_gradient_divide_factor(1.0)  # type: ignore[operator]
            # gloo has no scaled sum.
            module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]
    return model


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Decay matrices; leave vectors (norms, biases) alone, as Hugging Face's trainer does."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        is_vector = parameter.ndim < 2 or name.endswith("score.weight")
        (plain if is_vector else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
