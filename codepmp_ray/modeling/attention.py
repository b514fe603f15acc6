"""Attention over packed pairs, registered with transformers as `codepmp_packed`.

Each pair is computed as two dense blocks, without any mask over other pairs: prompt + chosen is
plain causal attention; rejected attends to the prompt and, causally, to itself. The cost is that of
the pairs themselves, however many share a sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from codepmp_ray.errors import ModelError
from codepmp_ray.preference.packing import Span

NAME = "codepmp_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    packed_spans: list[Span] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface.

    Shapes: query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d].
    """
    if packed_spans is None:
        raise ModelError("packed attention was called without the spans of the packed pairs.")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    outputs: list[torch.Tensor] = []
    for span in packed_spans:
        whole, prompt = slice(span.start, span.rejected), slice(span.start, span.chosen)
        side = slice(span.rejected, span.end)
        outputs.append(
            sdpa(
                query[:, :, whole],
                key[:, :, whole],
                value[:, :, whole],
                dropout_p=dropout,
                is_causal=True,
                scale=scaling,
            )
        )
        outputs.append(
            sdpa(
                query[:, :, side],
                torch.cat([key[:, :, prompt], key[:, :, side]], dim=2),
                torch.cat([value[:, :, prompt], value[:, :, side]], dim=2),
                attn_mask=_rejected_mask(span, query.device),
                dropout_p=dropout,
                scale=scaling,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _rejected_mask(span: Span, device: torch.device) -> torch.Tensor:
    """bool [rejected, prompt + rejected]: the whole prompt, and rejected up to oneself."""
    num_prompt, num_side = span.chosen - span.start, span.end - span.rejected
    full = torch.ones(num_side, num_prompt + num_side, dtype=torch.bool, device=device)
    return full.tril(diagonal=num_prompt)


def require_supported(config: Any) -> None:
    """Raise ModelError for attention that this implementation would compute wrongly."""
    if getattr(config, "attn_logit_softcapping", None):
        raise ModelError(
            f"{config.model_type} caps attention logits, which packed training does not do yet.",
            "Choose a Llama or Qwen backbone.",
        )
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        raise ModelError(
            f"{config.model_type} uses a sliding window of {window} tokens, which packed training "
            "does not do yet.",
            "Choose a backbone with full attention.",
        )


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
