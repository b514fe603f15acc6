"""Which extracted snippets stay: exact and near-duplicates and the sample of `max_snippets`.

Works on keys and positions only, never on code, so that one process can decide for a corpus that
no process could hold.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEPT, DUPLICATE, OVER_MAX, NEAR_DUPLICATE = 0, 1, 2, 3


@dataclass(frozen=True)
class Selection:
    """Per snippet, in corpus order.

    Attributes:
        fates: KEPT, DUPLICATE, OVER_MAX or NEAR_DUPLICATE.
        first: position of the snippet that a duplicate lost to: the first one with the same key,
            or the first one of its cluster of near-duplicates; negative for a snippet of an
            earlier corpus, -1 the last one there. Its own position for one that lost to none.
    """

    fates: npt.NDArray[np.int8]
    first: npt.NDArray[np.int64]

    @property
    def num_kept(self) -> int:
        return int((self.fates == KEPT).sum())


def select_snippets(
    keys: bytes,
    max_snippets: int | None,
    seed: int,
    first_near: npt.NDArray[np.int64] | None = None,
) -> Selection:
    """Decide from `keys`, 16 bytes per snippet in corpus order.

    Of equal snippets the first in corpus order stays; of those that are left, those that are the
    first of their cluster (`first_near`, see `clusters`, with negative numbers for snippets of
    earlier corpora; None does not look for near-duplicates). If more than `max_snippets` are left,
    those with the smallest hash of (seed, key) stay: a sample that does not depend on order or
    names.
    """
    first = first_of_equal(keys)
    num = len(first)
    unique = np.flatnonzero(first == np.arange(num))
    fates = np.full(num, DUPLICATE, dtype=np.int8)
    fates[unique] = KEPT
    if first_near is not None:
        is_near = (fates == KEPT) & (first_near != np.arange(num))
        fates[is_near] = NEAR_DUPLICATE
        first[is_near] = first_near[is_near]
        unique = np.flatnonzero(fates == KEPT)
    if max_snippets is not None and len(unique) > max_snippets:
        hashes = sample_hashes(keys, unique, seed)
        beyond = np.argsort(hashes, kind="stable")[max_snippets:]
        fates[unique[beyond]] = OVER_MAX
    return Selection(fates, first)


def first_of_equal(keys: bytes) -> npt.NDArray[np.int64]:
    """Of each key, 16 bytes, the number of the first equal one; its own for the first."""
    pairs = np.frombuffer(keys, dtype=">u8").reshape(-1, 2)
    # lexsort is stable: within a run of equal keys positions ascend.
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ordered = pairs[order]
    starts = np.ones(len(pairs), dtype=bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    run = np.cumsum(starts) - 1
    first = np.empty(len(pairs), dtype=np.int64)
    first[order] = order[starts][run]
    return first


def sample_hashes(keys: bytes, rows: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """What orders the sample of `max_snippets`: a hash of (seed, key) for each of `rows`."""
    prefix = f"snippet {seed} ".encode()
    hashes = [_hash64(prefix + keys[16 * i : 16 * i + 16]) for i in rows.tolist()]
    return np.array(hashes, dtype=np.uint64)


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
