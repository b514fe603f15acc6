"""The order of an epoch and the packing of a step, as functions that every rank can compute.

Nothing here depends on what ran before: epoch order is a function of (seed, epoch), a step's
micro-batches a function of the lengths of its pairs and the number of ranks. Resuming in the middle
of an epoch and resizing follow from that, and ranks agree on the number of micro-batches without
talking to each other.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from codepmp_ray.errors import InputError


@functools.lru_cache(maxsize=1)  # every step of an epoch asks for it; a second of work at 28M pairs
def epoch_order(num_pairs: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [num_pairs], read-only: a permutation fixed by (seed, epoch)."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_pairs)
    order.flags.writeable = False
    return order


def num_steps(num_pairs: int, batch_size: int, num_epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of the whole training; the last batch of an epoch may be smaller.

    `max_steps` wins over `num_epochs`, as in transformers; without pairs there is no step.
    """
    per_epoch = math.ceil(num_pairs / batch_size)
    if max_steps is not None and per_epoch:
        return max_steps
    return per_epoch * num_epochs


def step_indices(num_pairs: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices of the pairs of optimizer step `step` (from 0), over all ranks."""
    steps_per_epoch = math.ceil(num_pairs / batch_size)
    epoch, offset = divmod(step, steps_per_epoch)
    order = epoch_order(num_pairs, seed, epoch)
    return order[offset * batch_size : (offset + 1) * batch_size]


def num_pairs_seen(num_pairs: int, batch_size: int, step: int) -> int:
    """Pairs of the first `step` optimizer steps; one seen in two epochs counts twice."""
    epochs, steps = divmod(step, math.ceil(num_pairs / batch_size))
    return epochs * num_pairs + min(steps * batch_size, num_pairs)


@dataclass(frozen=True)
class StepPlan:
    """`micro_batches[rank][i]`: positions within the step; every rank has the same number."""

    micro_batches: list[list[list[int]]]

    @property
    def num_micro_batches(self) -> int:
        return len(self.micro_batches[0])


def plan_step(
    lengths: list[int], num_ranks: int, max_tokens: int, *, is_padded: bool = False
) -> StepPlan:
    """Spread pairs of the given packed lengths over ranks and micro-batches of `max_tokens`.

    Longest first onto the rank with the fewest tokens, then first fit within the rank. Ranks with
    fewer micro-batches get empty ones, which run as fillers.

    With `is_padded` every pair of a micro-batch takes as much as its longest one, and a pair above
    the limit runs alone. Otherwise raises InputError when a single pair exceeds `max_tokens`.
    """
    if not is_padded and lengths and max(lengths) > max_tokens:
        raise InputError(
            f"A packed pair has {max(lengths)} tokens; max_tokens_per_micro_batch={max_tokens}.",
            "Raise max_tokens_per_micro_batch to twice max_length, or lower max_length.",
        )
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    loads = [0] * num_ranks
    of_rank: list[list[int]] = [[] for _ in range(num_ranks)]
    for index in by_length:
        rank = min(range(num_ranks), key=lambda r: (loads[r], r))
        loads[rank] += lengths[index]
        of_rank[rank].append(index)
    fit = _first_fit_padded if is_padded else _first_fit
    packed = [fit(indices, lengths, max_tokens) for indices in of_rank]
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


def _first_fit_padded(indices: list[int], lengths: list[int], max_tokens: int) -> list[list[int]]:
    """The first of a micro-batch is its longest, since they come in that order."""
    batches: list[list[int]] = []
    for index in indices:
        last = batches[-1] if batches else []
        if last and (len(last) + 1) * lengths[last[0]] <= max_tokens:
            last.append(index)
        else:
            batches.append([index])
    return batches
