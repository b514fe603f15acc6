"""Packed attention as dense blocks: prompt + chosen, then rejected over prompt and itself."""

from __future__ import annotations

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention as sdpa

from codepmp_ray.preference.packing import PackedLayout, Span


def attend_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """[1, heads, T, d] x [1, kv_heads, T, d] -> [1, heads, T, d]."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    outputs: list[torch.Tensor] = []
    for span in layout.spans:
        whole, side = slice(span.start, span.rejected), slice(span.rejected, span.end)
        outputs.append(
            _attend(
                query[:, :, whole],
                key[:, :, whole],
                value[:, :, whole],
                _whole_mask(span, layout, sliding_window, query.device),
                scaling,
                dropout,
                softcap,
            )
        )
        if span.end == span.rejected:
            continue
        prompt = slice(span.start, span.chosen)
        outputs.append(
            _attend(
                query[:, :, side],
                torch.cat([key[:, :, prompt], key[:, :, side]], dim=2),
                torch.cat([value[:, :, prompt], value[:, :, side]], dim=2),
                _rejected_mask(span, layout, sliding_window, query.device),
                scaling,
                dropout,
                softcap,
            )
        )
    return torch.cat(outputs, dim=2)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> torch.Tensor:
    """`mask` is bool [queries, keys]; None is plain causal attention over equal lengths."""
    if softcap is None:
        is_causal = mask is None
        return sdpa(query, key, value, mask, dropout, is_causal=is_causal, scale=scaling)
    # Gemma2's tanh on the logits is not in the fused kernels.
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    if mask is None:
        mask = _causal(query.shape[2], key.shape[2], query.device)
    scores = scores.masked_fill(~mask, float("-inf"))
    precise = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(dim=-1, dtype=precise).to(query.dtype)
    return drop(weights, dropout) @ value


def _whole_mask(
    span: Span, layout: PackedLayout, window: int | None, device: torch.device
) -> torch.Tensor | None:
    """Of prompt + chosen over itself; None where plain causal attention does."""
    num_tokens = span.rejected - span.start
    if window is None or num_tokens <= window:
        return None
    return layout.cached(
        ("whole", span, window),
        lambda: _causal(num_tokens, num_tokens, device).triu(diagonal=1 - window),
    )


def _rejected_mask(
    span: Span, layout: PackedLayout, window: int | None, device: torch.device
) -> torch.Tensor:
    """bool [rejected, prompt + rejected]: the prompt and rejected up to oneself, in the window.

    Positions are contiguous over prompt and rejected, so both bounds are diagonals.
    """
    num_prompt, num_side = span.chosen - span.start, span.end - span.rejected

    def make() -> torch.Tensor:
        mask = _causal(num_side, num_prompt + num_side, device)
        return mask if window is None else mask.triu(diagonal=num_prompt + 1 - window)

    return layout.cached(("rejected", span, window), make)


def _causal(num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
    """bool [queries, keys]; the last query sees every key."""
    full = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return full.tril(diagonal=num_keys - num_queries)
