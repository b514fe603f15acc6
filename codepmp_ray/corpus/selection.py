"""Which extracted snippets stay: exact duplicates and the sample of `max_snippets`.

Works on keys and positions only, never on code, so that one process can decide for a corpus that
no process could hold.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEPT, DUPLICATE, OVER_MAX = 0, 1, 2


@dataclass(frozen=True)
class Selection:
    """Per snippet, in corpus order.

    Attributes:
        fates: KEPT, DUPLICATE or OVER_MAX.
        first: position of the first snippet with the same key (its own for one that is first).
    """

    fates: npt.NDArray[np.int8]
    first: npt.NDArray[np.int64]

    @property
    def num_kept(self) -> int:
        return int((self.fates == KEPT).sum())


def select_snippets(keys: bytes, max_snippets: int | None, seed: int) -> Selection:
    """Decide from `keys`, 16 bytes per snippet in corpus order.

    Of equal snippets the first in corpus order stays. If more than `max_snippets` are left, those
    with the smallest hash of (seed, key) stay: a sample that does not depend on order or names.
    """
    pairs = np.frombuffer(keys, dtype=">u8").reshape(-1, 2)
    num = len(pairs)
    # lexsort is stable: within a run of equal keys positions ascend.
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ordered = pairs[order]
    starts = np.ones(num, dtype=bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    run = np.cumsum(starts) - 1
    first = np.empty(num, dtype=np.int64)
    first[order] = order[starts][run]
    unique = np.flatnonzero(first == np.arange(num))
    fates = np.full(num, DUPLICATE, dtype=np.int8)
    fates[unique] = KEPT
    if max_snippets is not None and len(unique) > max_snippets:
        prefix = f"snippet {seed} ".encode()
        hashes = np.array(
            [_hash64(prefix + keys[16 * i : 16 * i + 16]) for i in unique], dtype=np.uint64
        )
        beyond = np.argsort(hashes, kind="stable")[max_snippets:]
        fates[unique[beyond]] = OVER_MAX
    return Selection(fates, first)


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
