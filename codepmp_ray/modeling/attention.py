"""Attention over packed items, registered with transformers as `codepmp_packed`.

What a token may see is defined once, in `may_attend`: its own item, itself and what comes before
it, never another answer, and no further back than a sliding window, which counts positions and not
places in the pack (the positions of each answer restart after the prompt).

On CPU each answer is a dense block, without any mask over other items: the cost is that of the
items themselves, however many share a sequence. Where nothing but softmax(q k) v is asked for, they
are one step of autograd (`attention_cpu`), otherwise plain operations (`attention_blocks`). On GPU
it is one FlexAttention kernel whose block mask skips what nobody sees (`attention_flex`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from codepmp_ray.errors import ModelError
from codepmp_ray.modeling.attention_blocks import AttentionRule, attend_in_blocks
from codepmp_ray.modeling.attention_cpu import attend_fused
from codepmp_ray.modeling.attention_flex import attend_with_flex
from codepmp_ray.preference.packing import PackedLayout

NAME = "codepmp_packed"


@torch.compiler.disable  # compiled code around it hands over here; FlexAttention compiles itself
def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_layout: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface.

    Shapes: query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d].
    """
    if packed_layout is None:
        raise ModelError("packed attention was called without the layout of the packed pairs.")
    if kwargs.get("s_aux") is not None:
        raise ModelError(
            f"{type(module).__name__} has attention sinks, which packed attention does not do."
        )
    if sliding_window is not None and sliding_window >= packed_layout.longest:
        sliding_window = None  # nobody is that far from anybody
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = AttentionRule(scale, dropout, sliding_window, softcap)
    is_even = query.shape[-1] == value.shape[-1]  # latent attention has narrower values
    output = _way(query.device, rule, is_even)(query, key, value, packed_layout, rule)
    return output.transpose(1, 2).contiguous(), None


def _way(device: torch.device, rule: AttentionRule, is_even: bool) -> Callable[..., torch.Tensor]:
    if device.type == "cuda":
        return attend_with_flex
    is_plain = rule.soft_cap is None and not rule.dropout and is_even
    return attend_fused if device.type == "cpu" and is_plain else attend_in_blocks


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
