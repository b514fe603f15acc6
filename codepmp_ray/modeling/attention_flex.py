"""Packed attention as one FlexAttention kernel; FlexAttention has no backward pass on CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.attention_blocks import AttentionRule
from codepmp_ray.preference.packing import PackedLayout

Index = torch.Tensor


def may_attend(layout: PackedLayout, window: int | None) -> Callable[..., torch.Tensor]:
    """FlexAttention's mask_mod: (batch, head, query index, key index) -> bool.

    The one definition of who sees whom; the dense blocks are tested against it.
    """
    pair, side, position = layout.pair, layout.side, layout.position

    def mask(batch: Index, head: Index, query: Index, key: Index) -> torch.Tensor:
        same_pair = pair[query] == pair[key]
        other_side = (side[query] != side[key]) & (side[key] != 0)
        seen = same_pair & (key <= query) & ~other_side
        if window is not None:
            seen = seen & (position[query] - position[key] < window)
        return seen

    return mask


def attend_with_flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    rule: AttentionRule,
) -> torch.Tensor:
    """[1, heads, T, d] x [1, kv_heads, T, d] -> [1, heads, T, d].

    Raises ModelError for attention dropout, which FlexAttention does not have.
    """
    if rule.dropout:
        raise ModelError(
            f"The backbone asks for attention dropout ({rule.dropout}), which packed training on "
            "GPU does not do.",
            "Set attention_dropout to 0 in the model's config.json, as all common models have it.",
        )
    from torch.nn.attention.flex_attention import create_block_mask

    num_tokens = query.shape[2]
    block_mask = layout.cached(
        ("flex", rule.window),
        lambda: create_block_mask(
            may_attend(layout, rule.window), None, None, num_tokens, num_tokens, query.device
        ),
    )
    score_mod = None if rule.soft_cap is None else _soft_cap(rule.soft_cap)
    return _kernel(query.is_cuda)(
        query,
        key,
        value,
        score_mod,
        block_mask,
        rule.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


@cache
def _soft_cap(cap: float) -> Callable[..., torch.Tensor]:
    # One function per cap: another function object would be compiled again.
    def score(value: torch.Tensor, *indices: Index) -> torch.Tensor:
        return cap * torch.tanh(value / cap)

    return score


@cache
def _kernel(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # Sequences differ in length from step to step; dynamic shapes compile once.
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
