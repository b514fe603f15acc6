"""Learning-rate schedules as functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from codepmp_ray.config.training import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Rate of optimizer step `step` (0-based) of `total_steps`; paper Tables 7 to 9.

    wsd: linear warmup, constant, linear decay towards `min_lr_ratio`.
    cosine: linear warmup, half a cosine towards `min_lr_ratio`.
    The floor would be reached at step `total_steps`, so no step is spent at a rate of zero.
    """
    num_warmup = math.ceil(config.warmup_ratio * total_steps)
    floor = config.min_lr_ratio
    if step < num_warmup:
        return config.learning_rate * (step + 1) / num_warmup
    if config.schedule == "wsd":
        num_decay = math.ceil(config.decay_ratio * total_steps)
        into_decay = step - (total_steps - num_decay)
        factor = 1.0 if into_decay <= 0 else 1.0 - (1.0 - floor) * into_decay / num_decay
    else:
        progress = (step - num_warmup) / max(1, total_steps - num_warmup)
        factor = floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * factor
