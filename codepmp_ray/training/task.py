"""What one training stage is, without torch: drivers and Ray Train's controller need only this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.branches import BranchesConfig, plan_branches
from codepmp_ray.config.training import TrainingConfig

MODEL_FOLDER = "model"  # of the export, in the stage's folder


@dataclass(frozen=True)
class Trunk:
    """What a run and its branches share. `folder` holds the checkpoints at branch points.

    Attributes:
        config: of the whole run.
    """

    folder: str
    config: TrainingConfig
    branches: BranchesConfig

    def leaving_steps(self, trunk_steps: int) -> list[int]:
        """Steps of the trunk after which a checkpoint is kept, ascending."""
        planned = plan_branches(self.config, self.branches, trunk_steps)
        return sorted({branch.leaves_at for branch in planned})


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
