"""Branched decay: the scaling curve of Figure 5 out of one training run."""

from __future__ import annotations

from pydantic import Field

from codepmp_ray.config.base import Section


class BranchesConfig(Section):
    """Which shorter runs `jobs.branch` makes beside the whole pretraining.

    Attributes:
        factor: ratio of the lengths of neighbouring runs; the authors' scripts use 2^(1/4).
        num_branches: how many shorter runs, the longest first; those that would leave the trunk
            before its warmup ends are left out.
        finetune: finetune a reward model from every run.
        evaluate: measure best-of-N accuracy of every reward model; needs `finetune`.
    """

    factor: float = Field(default=2**0.25, gt=1)
    num_branches: int = Field(default=12, ge=1)
    finetune: bool = True
    evaluate: bool = True
