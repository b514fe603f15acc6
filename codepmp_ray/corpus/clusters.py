"""Near-duplicates from sketches: who belongs together, and who of them stays.

Two snippets are neighbours when they share a band key and their signatures are alike enough; a
cluster is everything that neighbours connect; its first member in corpus order stays. Works on one
band at a time: the process that decides holds a signature and a key per snippet, and never code.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from codepmp_ray.corpus.minhash import Signatures, similarity

Positions = npt.NDArray[np.int64]
# Within the snippets of one key, so many are compared with all others, the first ones in corpus
# order that are unlike those before. It bounds the work on keys that half the world shares.
_MAX_LEADERS = 16
_ROWS_AT_ONCE = 100_000


def first_of_clusters(
    bands: Iterable[npt.NDArray[np.uint64]], signatures: Signatures, min_similarity: float
) -> Positions:
    """Per snippet, the position of the first member of its cluster; its own for one that is first.

    `bands` are the keys of one band each, of all snippets in corpus order, as are `signatures`.
    The result does not depend on the order of the bands.
    """
    first = np.arange(len(signatures), dtype=np.int64)
    for keys in bands:
        members = np.arange(len(keys), dtype=np.int64)
        for _ in range(_MAX_LEADERS):
            members, leaders = _with_leaders(keys, members)
            if not len(members):
                break
            alike = _are_alike(signatures, members, leaders, min_similarity)
            first = _join(first, members[alike], leaders[alike])
            members = members[~alike]
    return first


def _with_leaders(keys: npt.NDArray[np.uint64], members: Positions) -> tuple[Positions, Positions]:
    """Those of `members` that are not the first of their key, and which one is."""
    order = members[np.argsort(keys[members], kind="stable")]
    ordered = keys[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    leaders = order[starts][np.cumsum(starts) - 1]
    later = np.sort(np.flatnonzero(~starts))
    # In corpus order again, so that the next round's leaders are the first ones, too.
    by_position = later[np.argsort(order[later], kind="stable")]
    return order[by_position], leaders[by_position]


def _are_alike(
    signatures: Signatures, left: Positions, right: Positions, min_similarity: float
) -> npt.NDArray[np.bool_]:
    parts = [
        similarity(
            signatures[left[i : i + _ROWS_AT_ONCE]], signatures[right[i : i + _ROWS_AT_ONCE]]
        )
        >= min_similarity
        for i in range(0, len(left), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts)


def _join(first: Positions, left: Positions, right: Positions) -> Positions:
    """`first` with the clusters of left[i] and right[i] made one, for each i.

    Every member points at the first one of its cluster; that of the later cluster is hooked onto
    that of the earlier one until nothing changes.
    """
    first = first.copy()
    while True:
        a, b = first[left], first[right]
        low, high = np.minimum(a, b), np.maximum(a, b)
        differs = low != high
        if not differs.any():
            return first
        np.minimum.at(first, high[differs], low[differs])
        while not np.array_equal(shorter := first[first], first):
            first = shorter
