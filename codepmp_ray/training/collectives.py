"""What ranks have to agree on although only one of them looks."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def agree(value: T) -> T:
    """Rank 0's value, on every rank. Collective."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
