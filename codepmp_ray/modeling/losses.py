"""L_PMP = L_RM + L_LM (section 3.1) as sums; the caller divides by global counts.

Sums make the result independent of how pairs were split into micro-batches and ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


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


def token_log_likelihoods(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    soft_cap: float | None = None,
    chunk_size: int = 512,
) -> torch.Tensor:
    """Log-likelihood of every target token, in nats; [C], at least fp32.

    The vocabulary's logits exist for one chunk at a time and are computed again in the backward
    pass, so memory does not grow with the number of targets.

    Args:
        hidden: [C, H] final hidden states that predict `targets`.
        weight: [V, H] of the LM head.
        targets: int64 [C].
        soft_cap: bound of the logits, soft_cap x tanh(logits / soft_cap), where the model has one.
    """
    pieces = [
        checkpoint(
            _chunk,
            hidden[start : start + chunk_size],
            weight,
            targets[start : start + chunk_size],
            soft_cap,
            use_reentrant=False,
        )
        for start in range(0, hidden.shape[0], chunk_size)
    ]
    return torch.cat(pieces)


def _chunk(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, soft_cap: float | None
) -> torch.Tensor:
    logits = at_least_fp32(F.linear(hidden, weight))
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    return -F.cross_entropy(logits, targets, reduction="none")
