"""The order of an epoch and the packing of a step, as functions that every rank can compute.

Nothing here depends on what ran before: epoch order is a function of (seed, epoch), a step's
micro-batches a function of the lengths of its items and the number of ranks. Resuming in the middle
of an epoch and resizing follow from that, and ranks agree on the number of micro-batches without
talking to each other.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from codepmp_ray.errors import InputError


@functools.lru_cache(maxsize=1)  # every step of an epoch asks for it; a second of work at 28M items
def epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [num_items], read-only: a permutation fixed by (seed, epoch)."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_items)
    order.flags.writeable = False
    return order


def num_steps(num_items: int, step_items: int, num_epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of `step_items`; the last one of an epoch may be smaller.

    `max_steps` wins over `num_epochs`, as in transformers; without items there is no step.
    """
    per_epoch = math.ceil(num_items / step_items)
    if max_steps is not None and per_epoch:
        return max_steps
    return per_epoch * num_epochs


@dataclass(frozen=True)
class StepPlan:
    """`micro_batches[rank][i]`: positions within the step; every rank has the same number."""

    micro_batches: list[list[list[int]]]

    @property
    def num_micro_batches(self) -> int:
        return len(self.micro_batches[0])


def plan_step(
    lengths: list[int], num_ranks: int, max_tokens: int, *, rows: list[int] | None = None
) -> StepPlan:
    """Spread items of the given packed lengths over ranks and micro-batches of `max_tokens`.

    Longest first onto the rank with the fewest tokens, then first fit within the rank. Ranks with
    fewer micro-batches get empty ones, which run as fillers.

    With `rows` each item is so many padded rows of the given length: those of a micro-batch take as
    much as its longest one, and an item above the limit runs alone. Otherwise raises InputError
    when a single item exceeds `max_tokens`.
    """
    widths = lengths
    if rows is not None:
        lengths = [number * width for number, width in zip(rows, widths, strict=True)]
    elif lengths and max(lengths) > max_tokens:
        raise InputError(
            f"A packed item has {max(lengths)} tokens; max_tokens_per_micro_batch={max_tokens}.",
            "Raise max_tokens_per_micro_batch to max_tokens_per_item, or lower that.",
        )
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    loads = [0] * num_ranks
    of_rank: list[list[int]] = [[] for _ in range(num_ranks)]
    for index in by_length:
        rank = min(range(num_ranks), key=lambda r: (loads[r], r))
        loads[rank] += lengths[index]
        of_rank[rank].append(index)
    if rows is None:
        packed = [_first_fit(indices, lengths, max_tokens) for indices in of_rank]
    else:
        packed = [_first_fit_padded(indices, widths, rows, max_tokens) for indices in of_rank]
    most = max(len(batches) for batches in packed)
    for batches in packed:
        batches += [[] for _ in range(most - len(batches))]
    return StepPlan(packed)


def _first_fit(indices: list[int], lengths: list[int], max_tokens: int) -> list[list[int]]:
    batches: list[list[int]] = []
    room: list[int] = []
    for index in indices:
        for slot, left in enumerate(room):
            if lengths[index] <= left:
                batches[slot].append(index)
                room[slot] -= lengths[index]
                break
        else:
            batches.append([index])
            room.append(max_tokens - lengths[index])
    return batches


def _first_fit_padded(
    indices: list[int], widths: list[int], rows: list[int], max_tokens: int
) -> list[list[int]]:
    batches: list[list[int]] = []
    num_rows = 0
    for index in sorted(indices, key=lambda index: (-widths[index], index)):
        # The first of a micro-batch is its longest.
        if batches and (num_rows + rows[index]) * widths[batches[-1][0]] <= max_tokens:
            batches[-1].append(index)
            num_rows += rows[index]
        else:
            batches.append([index])
            num_rows = rows[index]
    return batches
