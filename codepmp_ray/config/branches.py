"""Branched decay: the scaling curve of Figure 5 out of one warmup-stable-decay run.

While the rate is constant, a run of T steps and a longer one do the same: same warmup, same order
of pairs, same rate. So the shorter one need not be trained from its beginning: it starts at a
checkpoint of the longer one's stable phase, its branch point, and only decays. It is a plain
pretraining of `max_steps=T` with `trunk_steps`, a function of its settings: with or without the
shared checkpoints it gives the same weights, just sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.config.base import Section, operational
from codepmp_ray.config.training import TrainingConfig


class BranchesConfig(Section):
    """Which shorter runs `codepmp train branch` makes beside the whole pretraining; each is its
    own stage.

    Attributes:
        factor: ratio of the lengths of neighbouring runs; the authors' scripts use 2^(1/4).
        num_branches: how many shorter runs, the longest first; those that would leave the trunk
            before its warmup ends are left out.
        finetune: finetune a reward model from every run.
        evaluate: measure best-of-N accuracy of every reward model; needs `finetune`.
    """

    factor: float = operational(2**0.25, gt=1)
    num_branches: int = operational(12, ge=1)
    finetune: bool = operational(True)
    evaluate: bool = operational(True)


@dataclass(frozen=True)
class Branch:
    """A run of `total_steps` steps that leaves the trunk after `leaves_at` of them."""

    total_steps: int
    leaves_at: int


def plan_branches(
    config: TrainingConfig, branches: BranchesConfig, trunk_steps: int
) -> list[Branch]:
    """The shorter runs beside one of `trunk_steps` steps, longest first.

    Run k has about trunk_steps / factor^k steps, of which its own share `decay_ratio` is decay.
    """
    planned: list[Branch] = []
    for number in range(1, branches.num_branches + 1):
        total = round(trunk_steps / branches.factor**number)
        leaves_at = total - config.num_decay_steps(total)
        if leaves_at < max(1, config.num_warmup_steps(trunk_steps)):
            break
        if total < (planned[-1].total_steps if planned else trunk_steps):
            planned.append(Branch(total, leaves_at))
    return planned


def branch_config(config: TrainingConfig, branch: Branch, trunk_steps: int) -> TrainingConfig:
    """The settings of a branch of the run with `config`."""
    return config.model_copy(update={"max_steps": branch.total_steps, "trunk_steps": trunk_steps})
