"""Packed attention as one FlexAttention kernel; FlexAttention has no backward pass on CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.attention_blocks import AttentionRule
from codepmp_ray.modeling.block_mask import block_mask
from codepmp_ray.preference.packing import PackedLayout


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
    mask = layout.cached(("flex", rule.window), lambda: block_mask(layout, rule.window))
    score_mod = None if rule.soft_cap is None else _soft_cap(rule.soft_cap, query.device)
    return _kernel(query.is_cuda)(
        query,
        key,
        value,
        score_mod,
        mask,
        rule.scale,
        enable_gqa=query.shape[1] != key.shape[1],
        kernel_options=_OPTIONS,
    )


# The decoding kernel, which would be taken below 128 tokens, is not made for packs: it finds no
# variant for lengths that change, and fillers have three tokens.
_OPTIONS: Any = {"BACKEND": "TRITON"}


@cache
def _soft_cap(cap: float, device: torch.device) -> Callable[..., torch.Tensor]:
    # One function per cap: another function object would be compiled again. A tensor: torch would
    # take a plain number for one that changes, as lengths do, and ask for it in mid-graph.
    bound = torch.tensor(cap, device=device)

    def score(value: torch.Tensor, *indices: torch.Tensor) -> torch.Tensor:
        return bound * torch.tanh(value / bound)

    return score


@cache
def _kernel(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # Sequences differ in length from step to step; dynamic shapes compile once.
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
