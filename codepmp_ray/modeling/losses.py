"""L_PMP = L_RM + L_LM (section 3.1) as sums; the caller divides by global counts.

Sums make the result independent of how items were split into micro-batches and ranks. Rewards and
likelihoods are of A answers, `pairs` int64 [P, 2] names chosen and rejected among them, and
`weights` [P] says how much each pair counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def at_least_fp32(values: torch.Tensor) -> torch.Tensor:
    """bf16 becomes fp32; fp64 stays, so that exactness can be tested in it."""
    return values if values.dtype == torch.float64 else values.float()


def reward_loss_sum(
    rewards: torch.Tensor, pairs: torch.Tensor, margins: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum over pairs of -log sigmoid(s_chosen - s_rejected - margin); equation 2. [A] -> []."""
    chosen, rejected = at_least_fp32(rewards)[pairs].unbind(dim=1)
    losses = -F.logsigmoid(chosen - rejected - margins)
    return (losses * weights.to(losses.dtype)).sum()


def listwise_loss_sum(
    rewards: torch.Tensor, pairs: torch.Tensor, margins: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum over chosen answers of their cross-entropy among themselves and what they are preferred
    to: log(1 + sum of exp(s_rejected + margin - s_chosen)), the softmax of choice models (Luce
    1959). With one pair it is `reward_loss_sum`. `weights` are of the answers, [A]. [A] -> [].
    """
    chosen, rejected = at_least_fp32(rewards)[pairs].unbind(dim=1)
    owner, gaps = pairs[:, 0], rejected + margins - chosen
    largest = gaps.new_zeros(rewards.shape).scatter_reduce(0, owner, gaps.detach(), "amax")
    sums = (-largest).exp().index_add(0, owner, (gaps - largest[owner]).exp())
    return ((largest + sums.log()) * weights.to(gaps.dtype)).sum()


def centering_sum(
    rewards: torch.Tensor, pairs: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum over pairs of (s_chosen + s_rejected)^2, which keeps rewards around zero (as in TRL)."""
    sums = at_least_fp32(rewards)[pairs].sum(dim=1)
    return (sums.square() * weights.to(sums.dtype)).sum()


def dpo_loss_sum(
    log_likelihoods: torch.Tensor,
    references: torch.Tensor,
    pairs: torch.Tensor,
    weights: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Sum over pairs of -log sigmoid of the difference of implicit rewards.

    Rafailov et al. 2023, equation 7: the implicit reward of an answer is
    beta x (its log-likelihood - that under the reference); both are [A].
    """
    implicit = beta * (at_least_fp32(log_likelihoods) - references)
    return reward_loss_sum(implicit, pairs, implicit.new_zeros(()), weights)
