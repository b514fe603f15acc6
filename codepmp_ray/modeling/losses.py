"""L_PMP = L_RM + L_LM (section 3.1) as sums; the caller divides by global counts.

Sums make the result independent of how pairs were split into micro-batches and ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def at_least_fp32(values: torch.Tensor) -> torch.Tensor:
    """bf16 becomes fp32; fp64 stays, so that exactness can be tested in it."""
    return values if values.dtype == torch.float64 else values.float()


def reward_loss_sum(
    chosen: torch.Tensor, rejected: torch.Tensor, margins: torch.Tensor
) -> torch.Tensor:
    """Sum over pairs of -log sigmoid(s_chosen - s_rejected - margin); equation 2. [P] -> []."""
    difference = at_least_fp32(chosen) - at_least_fp32(rejected) - margins
    return -F.logsigmoid(difference).sum()


def centering_sum(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Sum over pairs of (s_chosen + s_rejected)^2, which keeps rewards around zero (as in TRL)."""
    return (at_least_fp32(chosen) + at_least_fp32(rejected)).square().sum()


def dpo_loss_sum(
    log_likelihoods: torch.Tensor, references: torch.Tensor, beta: float
) -> torch.Tensor:
    """Sum over pairs of -log sigmoid of the difference of implicit rewards.

    Rafailov et al. 2023, equation 7: the implicit reward of a response is
    beta x (its log-likelihood - that under the reference). Both arguments are [P, 2], chosen first.
    """
    implicit = beta * (at_least_fp32(log_likelihoods) - references)
    return -F.logsigmoid(implicit[:, 0] - implicit[:, 1]).sum()
