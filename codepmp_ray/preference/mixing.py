"""Sources mixed by weight: which items an epoch holds, and in which order, as arithmetic.

A source of n items and weight w gives m = round(w n) of them (at least one) to every epoch: epoch e
takes the places e m to (e + 1) m of the source's items repeated without end, in an order fixed by
the seed. So a weight of 1 is every item once, 2 every item twice, and with 0.5 two epochs see every
item once. The epoch's items are then shuffled together
by (seed, epoch): any step holds the sources in proportion to w n, on average. A step takes as many
items as hold `batch_size` pairs on average. Nothing depends on what ran before or on the number of
ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from codepmp_ray.preference.plan import epoch_order, num_steps


class Mixture:
    """`sizes[s]` items of source s, which lie one source after the other, and `weights[s]`.

    `num_pairs[s]` are the pairs of those items; where it is not given they are pairs.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        seed: int,
        num_pairs: Sequence[int] | None = None,
    ) -> None:
        self._sizes, self._seed = list(sizes), seed
        self._draws = [
            max(1, int(weight * size + 0.5)) if size else 0
            for size, weight in zip(sizes, weights, strict=True)
        ]
        drawn = zip(sizes, self._draws, sizes if num_pairs is None else num_pairs, strict=True)
        self._pairs_per_epoch = sum(draws * pairs / size for size, draws, pairs in drawn if size)
        # One epoch at a time: at 28 million items an order is 224 MB and takes seconds.
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    @property
    def num_per_epoch(self) -> int:
        return sum(self._draws)

    def num_steps(self, batch_size: int, num_epochs: int, max_steps: int | None) -> int:
        return num_steps(self.num_per_epoch, self._step_items(batch_size), num_epochs, max_steps)

    def epochs(self, batch_size: int, step: int) -> float:
        """Epochs in the first `step` optimizer steps."""
        return step / self.num_steps(batch_size, 1, None)

    def step_indices(self, batch_size: int, step: int) -> np.ndarray:
        """int64: items of optimizer step `step` (from 0), over all ranks."""
        num = self._step_items(batch_size)
        epoch, offset = divmod(step, self.num_steps(batch_size, 1, None))
        return self._epoch(epoch)[offset * num : (offset + 1) * num]

    def _step_items(self, batch_size: int) -> int:
        if not self._pairs_per_epoch:
            return batch_size
        return max(1, int(batch_size * self.num_per_epoch / self._pairs_per_epoch + 0.5))

    def _make_epoch(self, epoch: int) -> np.ndarray:
        order = epoch_order(self.num_per_epoch, self._seed, epoch)
        if self._draws == self._sizes:
            return order
        return self._members(epoch)[order]

    def _members(self, epoch: int) -> np.ndarray:
        """The epoch's items, repeated ones too, in ascending order of the items."""
        parts, first = [], 0
        for number, (size, draws) in enumerate(zip(self._sizes, self._draws, strict=True)):
            if draws:
                places = np.arange(epoch * draws, (epoch + 1) * draws, dtype=np.int64) % size
                parts.append(first + np.sort(self._fixed_order(number, size)[places]))
            first += size
        return np.concatenate(parts)

    def _fixed_order(self, number: int, size: int) -> np.ndarray:
        digest = hashlib.sha256(f"{self._seed}|source {number}".encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big"))).permutation(
            size
        )
