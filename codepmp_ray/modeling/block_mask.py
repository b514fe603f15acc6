"""Who sees whom in a pack, token by token, and in blocks for FlexAttention's kernel.

torch's `create_block_mask` asks the rule for every two tokens of the pack, on the GPU, at every
micro-batch: 268 million times at 16,384 tokens. What a span looks like is known, so the blocks
follow from its borders, and a thousand of them are a few slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from codepmp_ray.preference.packing import PackedLayout, Range, Span, to_device

Index = torch.Tensor
BLOCK_SIZE = 128  # of FlexAttention, where nothing else is asked for


def may_attend(layout: PackedLayout, window: int | None) -> Callable[..., torch.Tensor]:
    """FlexAttention's mask_mod: (batch, head, query index, key index) -> bool.

    The one definition of who sees whom; dense blocks and block masks are tested against it.
    """
    item, answer, position = layout.item, layout.answer, layout.position

    def mask(batch: Index, head: Index, query: Index, key: Index) -> torch.Tensor:
        same_item = item[query] == item[key]
        other_answer = (answer[query] != answer[key]) & (answer[key] != 0)
        seen = same_item & (key <= query) & ~other_answer
        if window is not None:
            seen = seen & (position[query] - position[key] < window)
        return seen

    return mask


def block_mask(layout: PackedLayout, window: int | None) -> Any:
    """FlexAttention's BlockMask of the pack, on the layout's device."""
    from torch.nn.attention.flex_attention import BlockMask

    num_tokens = layout.position.shape[0]
    some, whole = (
        to_device(blocks, layout.position.device)
        for blocks in visible_blocks(layout.spans, num_tokens, window, BLOCK_SIZE)
    )
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~whole),
        *_ordered(whole),
        BLOCK_SIZE=BLOCK_SIZE,
        mask_mod=may_attend(layout, window),
        seq_lengths=(num_tokens, num_tokens),
    )


def visible_blocks(
    spans: list[Span], num_tokens: int, window: int | None, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """bool [n, n] of blocks of `size` queries x `size` keys: some may be seen, all are seen.

    The first is never too small and the second never too large: the kernel asks `may_attend` in
    what lies between. Without a window the first is exact.
    """
    num_blocks = -(-num_tokens // size)
    some = torch.zeros(num_blocks, num_blocks, dtype=torch.bool)
    whole = torch.zeros_like(some)
    first = torch.arange(num_blocks) * size
    for span in spans:
        for queries, keys, gap in _regions(span):
            rows, columns = _touched(queries, size), _touched(keys, size)
            query, key = first[rows, None], first[None, columns]
            seen = key < query + size
            if window is not None:
                seen &= query - gap - (key + size - 1) < window
            some[rows, columns] |= seen
            if window is None:
                rows, columns = _inside(queries, size), _inside(keys, size)
                whole[rows, columns] |= first[None, columns] + size - 1 <= first[rows, None]
    return some, whole


def _regions(span: Span) -> Iterator[tuple[Range, Range, int]]:
    """(queries, keys, how much nearer their positions are than their places), causal within."""
    first, *others = span.answers
    yield (span.start, first[1]), (span.start, first[1]), 0
    for answer in others:
        yield answer, span.prompt, answer[0] - span.prompt[1]
        yield answer, answer, 0


def _touched(tokens: Range, size: int) -> slice:
    """Blocks with at least one of the tokens."""
    return slice(tokens[0] // size, -(-tokens[1] // size))


def _inside(tokens: Range, size: int) -> slice:
    """Blocks with nothing but them."""
    start = -(-tokens[0] // size)
    return slice(start, max(start, tokens[1] // size))


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each row of query blocks has, and which, those first: int32."""
    counts = blocks.sum(dim=-1, dtype=torch.int32)
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return counts[None, None], order.int()[None, None]
