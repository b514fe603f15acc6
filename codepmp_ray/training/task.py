"""What one training stage is, without torch: drivers and Ray Train's controller need only this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.training.branches import Trunk

MODEL_FOLDER = "model"  # of the export, in the stage's folder


@dataclass(frozen=True)
class TrainingTask:
    """What every rank needs to know.

    Attributes:
        read_rows: returns the TRL-format rows of the stage.
        trunk: what this run shares with shorter ones, where there are some.
    """

    stage: str
    config: TrainingConfig
    model_name_or_path: str
    read_rows: Callable[[], list[dict[str, Any]]]
    out_dir: str
    trunk: Trunk | None = None
