"""What one training stage is and which of its steps is the best one, without torch: drivers and Ray
Train's controller need only this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from codepmp_ray.config.branches import BranchesConfig, plan_branches
from codepmp_ray.config.training import TrainingConfig

SOURCE_STATS = "source."  # prefix of the counts by source in a shard's marker


@dataclass(frozen=True)
class InputShard:
    """Rows that are encoded together, by whichever rank they fall to.

    Attributes:
        source: the name under which they are counted; shards of one source follow each other.
        digest: changes with the rows.
        read: the rows in TRL format, in order; a row with a `reason` has been rejected before.
        is_evaluation: the source is a set of `eval_data`, of which nothing is trained on.
    """

    source: str
    digest: str
    read: Callable[[], Iterable[dict[str, Any]]]
    is_evaluation: bool = False


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
        trunk: what this run shares with shorter ones, where there are some.
        command: of several commands that train in `out_dir` the greatest goes on, see
            training/checkpoint.py.
    """

    stage: str
    config: TrainingConfig
    model_name_or_path: str
    inputs: tuple[InputShard, ...]
    out_dir: str
    trunk: Trunk | None = None
    command: str = ""

    def settings(self) -> dict[str, Any]:
        """Everything that was configured, as JSON values: what trackers compare runs by."""
        told = {"stage": self.stage, "model_name_or_path": self.model_name_or_path}
        return self.config.model_dump(mode="json") | told

    def weight_of(self, source: str) -> float:
        """How often a pair of that source is seen per epoch."""
        named = {data.label: data.weight for data in self.config.data}
        return named.get(source, 1.0)


def best_step(config: TrainingConfig, rows: Iterable[dict[str, Any]]) -> int | None:
    """The evaluated step where `best_metric` is best, the earliest of equals; None without one.

    A function of what metrics.jsonl holds, so that a resumed run chooses as the uninterrupted one.
    """
    name = config.best_metric
    if name is None:
        return None
    found = [
        (config.best_sign * row[name], -int(row["step"]))
        for row in rows
        if row["step"] > 0 and name in row and math.isfinite(row[name])
    ]
    return -max(found)[1] if found else None


def stopping_step(config: TrainingConfig, rows: Iterable[dict[str, Any]]) -> int | None:
    """The evaluated step after which early stopping ends the training; None while it goes on.

    A function of the evaluations in their order, as `best_step` is. Better is what exceeds the last
    value that counted as better by more than `early_stopping_min_delta`, as in Keras; a value that
    is not finite never is.
    """
    name, patience = config.best_metric, config.early_stopping_patience
    if name is None or patience is None:
        return None
    best, num_without = -math.inf, 0
    for row in rows:
        if row["step"] == 0:
            continue
        value = config.best_sign * row.get(name, math.nan)
        is_better = math.isfinite(value) and value > best + config.early_stopping_min_delta
        best, num_without = (value, 0) if is_better else (best, num_without + 1)
        if num_without == patience:
            return int(row["step"])
    return None
