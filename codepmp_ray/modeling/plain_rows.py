"""The plain path: an answer is an ordinary sequence, for backbones that cannot compute packs.

Each answer with its prompt is a row of its own, padded on the right, under transformers' own
attention. The padding has no mask: no token of a causal backbone sees what follows it, and a padded
token that may see nothing, as under a window that is shorter than the padding, makes gradients of
NaN in some families. The hidden states go back to the places of the pack, so losses do not know the
difference. A causal backbone gives a prompt the same states in all of its rows; those of the
first are taken.
"""

from __future__ import annotations

from typing import Any

import torch

from codepmp_ray.preference.packing import PackedBatch, Span, to_device


def hidden_of_rows(backbone: Any, batch: PackedBatch) -> torch.Tensor:
    """[T, H]: the last hidden states of a pack's tokens, computed row by row in one forward."""
    places, row_of, column_of = _rows(batch.spans)
    device = batch.input_ids.device
    num_rows, width = places.shape
    ids = batch.input_ids[0][to_device(places.clamp(min=0), device)]
    hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
    flat = hidden.reshape(num_rows * width, -1)
    return flat[to_device(row_of * width + column_of, device)]


def _rows(spans: list[Span]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(int64 [rows, width] place in the pack or -1, and for each place its row and its column)."""
    rows: list[list[int]] = []
    row_of: list[int] = []
    column_of: list[int] = []
    for span in spans:
        prompt = range(*span.prompt)
        row_of += [len(rows)] * len(prompt)
        column_of += range(len(prompt))
        for own in (range(*answer) for answer in span.answers):
            row_of += [len(rows)] * len(own)
            column_of += range(len(prompt), len(prompt) + len(own))
            rows.append([*prompt, *own])
    width = max(map(len, rows))
    padded = [row + [-1] * (width - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor(row_of), torch.tensor(column_of)
