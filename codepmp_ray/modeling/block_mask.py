"""Who sees whom in a pack, token by token, and in blocks for FlexAttention's kernel.

torch's `create_block_mask` asks the rule for every two tokens of the pack, on the GPU, at every
micro-batch: 268 million times at 16,384 tokens. What a span looks like is known, so the blocks
follow from its borders, and a thousand of them are a few slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from codepmp_ray.preference.packing import PackedLayout, Span, to_device

Index = torch.Tensor
BLOCK_SIZE = 128  # of FlexAttention, where nothing else is asked for


def may_attend(layout: PackedLayout, window: int | None) -> Callable[..., torch.Tensor]:
    """FlexAttention's mask_mod: (batch, head, query index, key index) -> bool.

    The one definition of who sees whom; dense blocks and block masks are tested against it.
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


def _regions(span: Span) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """(queries, keys, how much nearer their positions are than their places), causal within."""
    yield (span.start, span.rejected), (span.start, span.rejected), 0
    if span.end > span.rejected:
        rejected = (span.rejected, span.end)
        yield rejected, (span.start, span.chosen), span.rejected - span.chosen
        yield rejected, rejected, 0


def _touched(tokens: tuple[int, int], size: int) -> slice:
    """Blocks with at least one of the tokens."""
    return slice(tokens[0] // size, -(-tokens[1] // size))


def _inside(tokens: tuple[int, int], size: int) -> slice:
    """Blocks with nothing but them."""
    start = -(-tokens[0] // size)
    return slice(start, max(start, tokens[1] // size))


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each row of query blocks has, and which, those first: int32."""
    counts = blocks.sum(dim=-1, dtype=torch.int32)
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return counts[None, None], order.int()[None, None]
