"""What is asked about a backbone's family before anything is planned, read or loaded."""

from __future__ import annotations

from typing import Any

import torch

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.paths import TrainingPath, choose_path
from codepmp_ray.training.step import objective_of


def require_family(config: TrainingConfig, shape: Any) -> TrainingPath:
    """How `config` trains a backbone of the transformers configuration `shape`, as a CPU finds it.

    Raises ModelError for a family that would be computed wrongly, with adapters or without, and
    ConfigError where a package for adapters is missing.
    """
    objective = objective_of(config)
    path = choose_path(shape, objective, torch.device("cpu"))
    if config.lora is not None:
        from codepmp_ray.modeling.lora_check import require_adaptable

        require_adaptable(shape, objective, config.lora, is_packed=path.is_packed)
    return path
