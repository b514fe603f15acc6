"""AdamW with weight decay on matrices only, fused: one pass over weights, gradients and moments.

Its learning rates are functions of the step: nothing to save, nothing to restore.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from codepmp_ray.config.training import TrainingConfig

if TYPE_CHECKING:
    from codepmp_ray.config.training import TrainingConfig


def make_optimizer(model: torch.nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer of a sharded model, at the peak learning rate of `config`."""
    return torch.optim.AdamW(
        _parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave vectors (norms, biases) alone, as Hugging Face's trainer does."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        is_vector = parameter.ndim < 2 or name.endswith("score.weight")
        (plain if is_vector else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def learning_rate(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Rate of optimizer step `step` (0-based) of `total_steps`; paper Tables 7 to 9.

    wsd: linear warmup, constant, linear decay towards `min_lr_ratio`.
    cosine: linear warmup, half a cosine towards `min_lr_ratio`.
    linear: linear warmup, a line towards `min_lr_ratio`.
    constant: linear warmup, then constant.
    The shapes are those of transformers.optimization, with two differences at the borders: warmup
    begins at the first fraction, not at zero, and the floor would be reached at step `total_steps`,
    so no step is spent at a rate of zero.
    """
    num_warmup = config.num_warmup_steps(total_steps)
    floor = config.min_lr_ratio
    if step < num_warmup:
        return config.learning_rate * (step + 1) / num_warmup
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "wsd":
        num_decay = config.num_decay_steps(total_steps)
        into_decay = step - (total_steps - num_decay)
        factor = 1.0 if into_decay <= 0 else 1.0 - (1.0 - floor) * into_decay / num_decay
        return config.learning_rate * factor
    progress = (step - num_warmup) / max(1, total_steps - num_warmup)
    share = (
        1.0 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    )
    return config.learning_rate * (floor + (1.0 - floor) * share)
