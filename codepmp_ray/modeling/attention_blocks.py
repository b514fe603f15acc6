"""Packed attention as dense blocks: an answer over its prompt and itself, for every answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention as sdpa

from codepmp_ray.preference.packing import PackedLayout, Range


@dataclass(frozen=True)
class AttentionRule:
    """What a layer of the backbone computes besides softmax(q k) v.

    Attributes:
        scale: factor of the logits, before the soft cap.
        window: positions that a token sees, itself included; None for all before it.
        soft_cap: bound of the logits, soft_cap x tanh(logits / soft_cap); None for none.
    """

    scale: float
    dropout: float
    window: int | None
    soft_cap: float | None


@dataclass(frozen=True)
class Block:
    """Queries that are neighbours, and the keys they see.

    Attributes:
        keys: in the order of the mask's columns.
        mask: 0 or -inf [queries, keys], float32 or float64; None hides nothing.
        is_causal: every query sees the keys up to itself; over equal lengths, without a mask.
        parts: blocks of the same queries over fewer keys each, together over all; none has a mask.
    """

    queries: Range
    keys: tuple[Range, ...]
    mask: torch.Tensor | None = None
    is_causal: bool = False
    parts: tuple[Block, ...] = ()


def blocks_of(
    layout: PackedLayout, window: int | None, dtype: torch.dtype, device: torch.device
) -> list[Block]:
    """A block for each answer, in the order of the pack; `dtype` is that of the queries."""
    precise = torch.promote_types(dtype, torch.float32)

    def make() -> list[Block]:
        blocks: list[Block] = []
        for span in layout.spans:
            first, *others = span.answers
            blocks.append(_whole((span.start, first[1]), window, precise, device))
            blocks += [_answer(span.prompt, own, window, precise, device) for own in others]
        return blocks

    return layout.cached(("blocks", window, precise), make)


def attend_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    rule: AttentionRule,
) -> torch.Tensor:
    """[1, heads, T, d] x [1, kv_heads, T, d] -> [1, heads, T, d]; any rule, on any device."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    blocks = blocks_of(layout, rule.window, query.dtype, query.device)
    # Cut once: the gradient of a split is one concatenation. Those of single slices are each as
    # long as the whole pack, which makes the backward pass quadratic in the number of answers.
    cuts = sorted(
        {cut for block in blocks for part in (block.queries, *block.keys) for cut in part}
    )
    number = {cut: i for i, cut in enumerate(cuts)}
    sizes = [end - start for start, end in pairwise(cuts)]
    queries, keys, values = (x.split(sizes, dim=2) for x in (query, key, value))

    def joined(pieces: tuple[torch.Tensor, ...], *wanted: Range) -> torch.Tensor:
        found = [piece for start, end in wanted for piece in pieces[number[start] : number[end]]]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    outputs = [
        _attend(
            joined(queries, block.queries),
            joined(keys, *block.keys),
            joined(values, *block.keys),
            block,
            rule,
        )
        for block in blocks
    ]
    return torch.cat(outputs, dim=2)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block: Block, rule: AttentionRule
) -> torch.Tensor:
    cap, mask = rule.soft_cap, block.mask
    if cap is None:
        mask = None if mask is None else mask.to(query.dtype)
        return sdpa(
            query, key, value, mask, rule.dropout, is_causal=block.is_causal, scale=rule.scale
        )
    # Gemma2's tanh on the logits is not in the fused kernels.
    scores = cap * torch.tanh(query @ key.transpose(2, 3) * (rule.scale / cap))
    precise = torch.promote_types(scores.dtype, torch.float32)
    if mask is None:
        mask = _mask(query.shape[2], key.shape[2], None, precise, query.device)
    weights = (scores.to(precise) + mask).softmax(dim=-1).to(query.dtype)
    return drop(weights, rule.dropout) @ value


def _whole(own: Range, window: int | None, dtype: torch.dtype, device: torch.device) -> Block:
    """Prompt + first answer over itself."""
    num_tokens = own[1] - own[0]
    if window is None or num_tokens <= window:
        return Block(own, (own,), is_causal=True)
    return Block(own, (own,), _mask(num_tokens, num_tokens, window, dtype, device))


def _answer(
    prompt: Range, own: Range, window: int | None, dtype: torch.dtype, device: torch.device
) -> Block:
    """An answer over the prompt and the answer up to oneself, in the window.

    Positions are contiguous over prompt and answer, so both bounds are diagonals.
    """
    num_own = own[1] - own[0]
    num_keys = prompt[1] - prompt[0] + num_own
    mask = _mask(num_own, num_keys, window, dtype, device)
    if window is not None and num_keys > window:
        return Block(own, (prompt, own), mask)
    return Block(
        own, (prompt, own), mask, parts=(Block(own, (prompt,)), Block(own, (own,), is_causal=True))
    )


def _mask(
    num_queries: int,
    num_keys: int,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """0 or -inf [queries, keys]; the last query sees the last key, and `window` keys at most."""
    offset = num_keys - num_queries
    visible = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(offset)
    if window is not None:
        visible = visible.triu(offset + 1 - window)
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(
        ~visible, float("-inf")
    )
