"""What ranks tell each other besides tensors: one's answer, everyone's values, failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from codepmp_ray.errors import CodePMPError

T = TypeVar("T")

# Returns the values of all ranks, in the order of ranks.
Gather = Callable[[Any], list[Any]]


def agree(value: T) -> T:
    """Rank 0's value, on every rank. Collective."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, by rank; only this one where there is no process group. Collective."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def failing_together(gather: Gather = gather_objects) -> Iterator[None]:
    """A CodePMPError of one rank in the block is raised on all: none waits for one that has left.

    Collective, so the block ends on every rank or fails there with a CodePMPError.
    """
    failure: CodePMPError | None = None
    try:
        yield
    except CodePMPError as error:
        failure = error
    for error in gather(failure):
        if error is not None:
            raise error
