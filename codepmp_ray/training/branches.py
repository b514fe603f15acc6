"""Branches of one warmup-stable-decay run: when they leave it, and what they share with it.

While the rate is constant, a run of T steps and a longer one do the same: same warmup, same order
of pairs, same rate. So the shorter one need not be trained from its beginning: it starts at a
checkpoint of the longer one's stable phase, its branch point, and only decays. It is a plain
pretraining of `max_steps=T` with `trunk_steps`, a function of its settings: with or without the
shared checkpoints it gives the same weights, just sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.config.branches import BranchesConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.training.schedule import decay_steps, warmup_steps


@dataclass(frozen=True)
class Branch:
    """A run of `total_steps` steps that leaves the trunk after `leaves_at` of them."""

    total_steps: int
    leaves_at: int


@dataclass(frozen=True)
class Trunk:
    """What runs of one family share. `folder` holds the checkpoints at branch points.

    Attributes:
        config: of the whole run.
    """

    folder: str
    config: TrainingConfig
    branches: BranchesConfig

    def leaving_steps(self, trunk_steps: int) -> list[int]:
        """Steps of the trunk after which a checkpoint is kept, ascending."""
        points = plan_branches(self.config, self.branches, trunk_steps)
        return sorted({point.leaves_at for point in points})


def plan_branches(
    config: TrainingConfig, branches: BranchesConfig, trunk_steps: int
) -> list[Branch]:
    """The shorter runs beside one of `trunk_steps` steps, longest first.

    Run k has about trunk_steps / factor^k steps, of which its own share `decay_ratio` is decay.
    """
    planned: list[Branch] = []
    for number in range(1, branches.num_branches + 1):
        total = round(trunk_steps / branches.factor**number)
        leaves_at = total - decay_steps(config, total)
        if total < 1 or leaves_at < max(1, warmup_steps(config, trunk_steps)):
            break
        if total < (planned[-1].total_steps if planned else trunk_steps):
            planned.append(Branch(total, leaves_at))
    return planned


def branch_config(config: TrainingConfig, branch: Branch, trunk_steps: int) -> TrainingConfig:
    """The settings of a branch of the run with `config`."""
    return config.model_copy(update={"max_steps": branch.total_steps, "trunk_steps": trunk_steps})
