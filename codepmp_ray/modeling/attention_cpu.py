"""Attention in blocks as one step of autograd, on torch's fused kernels for the CPU.

Autograd through a kernel call an answer costs more than it has to: a copy of keys and values for
every query head of a group, several small nodes for each block, and a backward pass in bf16, which
on CPU is the slower one and the less exact. Here a group's heads share keys and values by a stride
of 0, blocks write into one tensor, what is saved is what the layer has anyhow, and the gradients
are computed in fp32.

Given the softmax's normaliser, gradients are sums over keys. So the backward pass of a response is
that of its prompt, all of which it sees, and that of itself, plainly causal: no mask, and no
arithmetic on what a mask would hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from codepmp_ray.modeling.attention_blocks import AttentionRule, Block, blocks_of
from codepmp_ray.preference.packing import PackedLayout

_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_KERNEL_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend_fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    rule: AttentionRule,
) -> torch.Tensor:
    """[1, heads, T, d] x [1, kv_heads, T, d] -> [1, heads, T, d]; no soft cap, no dropout."""
    blocks = blocks_of(layout, rule.window, query.dtype, query.device)
    return _FusedBlocks.apply(query, key, value, blocks, rule.scale)


class _FusedBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        blocks: Sequence[Block],
        scale: float,
    ) -> torch.Tensor:
        # Written in the order [T, heads, d], in which the next layer reads it.
        output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        output = output.transpose(1, 2)
        num_kv_heads = key.shape[1]
        grouped_query, grouped_output = (_grouped(x, num_kv_heads) for x in (query, output))
        logsumexps: list[torch.Tensor] = []
        for block in blocks:
            start, end = block.queries
            result, logsumexp = _KERNEL(
                grouped_query[:, :, start:end],
                _of_block(key, block, grouped_query),
                _of_block(value, block, grouped_query),
                0.0,
                block.is_causal,
                attn_mask=block.mask,
                scale=scale,
            )
            grouped_output[:, :, start:end] = result
            logsumexps.append(logsumexp)
        ctx.save_for_backward(query, key, value, output, *logsumexps)
        ctx.blocks, ctx.scale = blocks, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        query, key, value, output, *logsumexps = ctx.saved_tensors
        exact = torch.promote_types(query.dtype, torch.float32)
        gradient, query_, key_, value_, output_ = (
            tensor.to(exact) for tensor in (gradients[0], query, key, value, output)
        )
        num_kv_heads = key.shape[1]
        grouped_gradient, grouped_query, grouped_output = (
            _grouped(x, num_kv_heads) for x in (gradient, query_, output_)
        )
        query_gradient = torch.zeros_like(grouped_query)
        key_gradient, value_gradient = torch.zeros_like(key_[0]), torch.zeros_like(value_[0])
        for block, logsumexp in zip(ctx.blocks, logsumexps, strict=True):
            start, end = block.queries
            for part in block.parts or (block,):
                of_query, of_key, of_value = _KERNEL_BACKWARD(
                    grouped_gradient[:, :, start:end],
                    grouped_query[:, :, start:end],
                    _of_block(key_, part, grouped_query),
                    _of_block(value_, part, grouped_query),
                    grouped_output[:, :, start:end],
                    logsumexp,
                    0.0,
                    part.is_causal,
                    attn_mask=part.mask,
                    scale=ctx.scale,
                )
                query_gradient[:, :, start:end] += of_query
                _add(key_gradient, of_key.sum(dim=1), part)
                _add(value_gradient, of_value.sum(dim=1), part)
        return (
            query_gradient.reshape(query.shape).to(query.dtype),
            key_gradient[None].to(key.dtype),
            value_gradient[None].to(value.dtype),
            None,
            None,
        )


def _grouped(tensor: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
    """[1, heads, T, d] -> [kv_heads, query heads of each, T, d], a view."""
    return tensor[0].unflatten(0, (num_kv_heads, -1))


def _of_block(tensor: torch.Tensor, block: Block, grouped_query: torch.Tensor) -> torch.Tensor:
    """The block's keys or values, [kv_heads, groups, keys, d] with a stride of 0 over groups."""
    parts = [tensor[0, :, start:end] for start, end in block.keys]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return joined.unsqueeze(1).expand(-1, grouped_query.shape[1], -1, -1)


def _add(total: torch.Tensor, gradient: torch.Tensor, block: Block) -> None:
    """Add [kv_heads, keys, d] to the places that the block's keys have in the pack."""
    sizes = [end - start for start, end in block.keys]
    for (start, end), part in zip(block.keys, gradient.split(sizes, dim=1), strict=True):
        total[:, start:end] += part
