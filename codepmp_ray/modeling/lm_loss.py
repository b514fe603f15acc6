"""What the LM head computes; the vocabulary's logits exist for one chunk of tokens at a time.

L_LM comes with its gradients in one pass. A sum of losses has a gradient that is known up to one
factor as soon as a chunk's logits are there. So the forward pass leaves the gradients of hidden
states and head behind instead of logits, and the backward pass multiplies: no logits are kept, none
is computed twice. (Hsu et al. 2024, Liger Kernel, do this on GPUs.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from codepmp_ray.modeling.losses import at_least_fp32

CHUNK_TOKENS = 512
_ROWS_AT_ONCE = 16384  # of the head's gradient


def lm_loss_sum(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    soft_cap: float | None = None,
    chunk_size: int = CHUNK_TOKENS,
) -> torch.Tensor:
    """Sum over tokens of -log p(target); L_LM of section 3.1 before its divisor.

    The backward pass can run once, since it takes the gradients with it.

    Args:
        hidden: [C, H] final hidden states that predict `targets`.
        weight: [V, H] of the LM head.
        targets: int64 [C].
        soft_cap: bound of the logits, soft_cap x tanh(logits / soft_cap), where the model has one.
        chunk_size: tokens whose logits, [chunk_size, V], exist at a time.

    Returns:
        Scalar in nats, at least fp32.
    """
    # Asked here: inside, gradients are always off, and inputs always look as if they needed one.
    has_backward = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    trains_head = has_backward and weight.requires_grad
    return _LMLossSum.apply(
        hidden, weight, targets, soft_cap, chunk_size, has_backward, trains_head
    )


def token_log_likelihoods(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    soft_cap: float | None = None,
    chunk_size: int = CHUNK_TOKENS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-likelihood of every target token in nats, mean of its logits over the vocabulary).

    For losses that are no plain sum of likelihoods, such as DPO's: logits are computed again in the
    backward pass. Both are [C], at least fp32; the second has no gradient. Arguments are those of
    `lm_loss_sum`.
    """
    return _TokenLogLikelihoods.apply(hidden, weight, targets, soft_cap, chunk_size)


def _logits(hidden: torch.Tensor, weight: torch.Tensor, soft_cap: float | None) -> torch.Tensor:
    """[c, H] -> [c, V], at least fp32."""
    logits = at_least_fp32(F.linear(hidden, weight))
    return logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)


def _loss_and_slope(
    logits: torch.Tensor,
    targets: torch.Tensor,
    soft_cap: float | None,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of losses, and its gradient by the logits [c, V], in their type; `targets` are [c, 1].

    With `weights` [c, 1] the gradient is that of the weighted sum.
    """
    capped = at_least_fp32(logits)
    if soft_cap is not None:
        capped = soft_cap * torch.tanh(capped / soft_cap)
    log_p = F.log_softmax(capped, dim=1)
    loss = -log_p.gather(1, targets).sum()
    slope = log_p.exp_()
    if torch.compiler.is_compiling():  # can be part of one pass; a scatter is one of its own
        slope = slope - (torch.arange(slope.shape[1], device=slope.device) == targets)
    else:
        slope.scatter_add_(1, targets, slope.new_full(targets.shape, -1.0))
    if soft_cap is not None:  # the slope of the cap
        slope *= 1 - (capped / soft_cap).square()
    if weights is not None:
        slope *= weights
    return loss, slope.to(logits.dtype)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right, where `total` may be of a wider type than both."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
        return
    # Each product is rounded once, their sum never. In parts: a product is as large as the head.
    for start in range(0, left.shape[0], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        total[rows] += left[rows] @ right


def _wide_zeros(weight: torch.Tensor) -> torch.Tensor:
    """For the gradient of the head while chunks are added up.

    In bf16 a long sum takes in less and less of what each chunk adds: 1.4 % off at 65k tokens.
    """
    return torch.zeros_like(weight, dtype=at_least_fp32(weight.new_zeros(())).dtype)


@cache
def _compiled_loss_and_slope() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return torch.compile(_loss_and_slope, dynamic=True)


class _LMLossSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        soft_cap: float | None,
        chunk_size: int,
        has_backward: bool,
        trains_head: bool,
    ) -> torch.Tensor:
        by_hidden = torch.empty_like(hidden) if has_backward else None
        by_weight = _wide_zeros(weight) if trains_head else None
        total = at_least_fp32(hidden.new_zeros(()))
        # On a GPU a few passes over a chunk's logits instead of one per operation. With a soft cap
        # not: torch would take the number for one that changes, and ask for it in mid-graph.
        is_compiled = hidden.is_cuda and soft_cap is None
        loss_and_slope = _compiled_loss_and_slope() if is_compiled else _loss_and_slope
        for start in range(0, hidden.shape[0], chunk_size):
            chunk = slice(start, start + chunk_size)
            if by_hidden is None:
                logits = _logits(hidden[chunk], weight, soft_cap)
                total += F.cross_entropy(logits, targets[chunk], reduction="sum")
                continue
            logits = F.linear(hidden[chunk], weight)
            loss, by_logits = loss_and_slope(logits, targets[chunk].unsqueeze(1), soft_cap)
            total += loss
            torch.mm(by_logits, weight, out=by_hidden[chunk])
            if by_weight is not None:
                _add_product(by_weight, by_logits.T, hidden[chunk])
        ctx.gradients = by_hidden, by_weight if by_weight is None else by_weight.to(weight.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (by_hidden, by_weight), ctx.gradients = ctx.gradients, None
        by_weight = None if by_weight is None else by_weight.mul_(grads[0])
        return by_hidden.mul_(grads[0]), by_weight, None, None, None, None, None


class _TokenLogLikelihoods(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        soft_cap: float | None,
        chunk_size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.soft_cap, ctx.chunk_size = soft_cap, chunk_size
        likelihoods = at_least_fp32(hidden.new_zeros(hidden.shape[0]))
        mean_logits = torch.zeros_like(likelihoods)
        for start in range(0, hidden.shape[0], chunk_size):
            chunk = slice(start, start + chunk_size)
            logits = _logits(hidden[chunk], weight, soft_cap)
            likelihoods[chunk] = -F.cross_entropy(logits, targets[chunk], reduction="none")
            mean_logits[chunk] = logits.mean(dim=1)
        ctx.mark_non_differentiable(mean_logits)
        return likelihoods, mean_logits

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, targets = ctx.saved_tensors
        by_hidden, by_weight = torch.empty_like(hidden), _wide_zeros(weight)
        for start in range(0, hidden.shape[0], ctx.chunk_size):
            chunk = slice(start, start + ctx.chunk_size)
            logits = F.linear(hidden[chunk], weight)
            by_loss = -grads[0][chunk].unsqueeze(1)
            _, by_logits = _loss_and_slope(
                logits, targets[chunk].unsqueeze(1), ctx.soft_cap, by_loss
            )
            torch.mm(by_logits, weight, out=by_hidden[chunk])
            _add_product(by_weight, by_logits.T, hidden[chunk])
        return by_hidden, by_weight.to(weight.dtype), None, None, None
