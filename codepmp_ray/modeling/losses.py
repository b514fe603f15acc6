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


def lm_loss_sum(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk_size: int = 512
) -> torch.Tensor:
    """Sum of next-token cross entropies; equation 1 on the chosen response.

    The vocabulary's logits exist for one chunk at a time and are computed again in the backward
    pass, so memory does not grow with the number of targets.

    Args:
        hidden: [C, H] final hidden states that predict `targets`.
        weight: [V, H] of the LM head.
        targets: int64 [C].
    """
    total = at_least_fp32(hidden.new_zeros(()))
    for start in range(0, hidden.shape[0], chunk_size):
        piece = slice(start, start + chunk_size)
        total = total + checkpoint(
            _chunk_loss, hidden[piece], weight, targets[piece], use_reentrant=False
        )
    return total


def _chunk_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = at_least_fp32(F.linear(hidden, weight))
    return F.cross_entropy(logits, targets, reduction="sum")
