"""Learning-rate schedules as functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from codepmp_ray.config.training import TrainingConfig


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
