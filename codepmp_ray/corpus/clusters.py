"""Near-duplicates from sketches: who belongs together, and who of them stays.

Two snippets are neighbours when they share a band key and their signatures are alike enough; a
cluster is everything that neighbours connect; its first member in corpus order stays. Neighbours
under one key do not depend on any other key, so keys can be looked at in any order and any number
of places; what they find are edges, and `Forest` joins those of all.
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
        first = _join(first, *alike_edges(keys, signatures, min_similarity))
    return first


def alike_edges(
    keys: npt.NDArray[np.uint64], signatures: Signatures, min_similarity: float
) -> tuple[Positions, Positions]:
    """(member, leader) of neighbours under the keys of one band, as row numbers.

    Rows are in corpus order; a leader always comes before its member. m snippets that are alike
    under one key give m - 1 edges.
    """
    found: list[tuple[Positions, Positions]] = []
    members = np.arange(len(keys), dtype=np.int64)
    for _ in range(_MAX_LEADERS):
        members, leaders = _with_leaders(keys, members)
        if not len(members):
            break
        alike = _are_alike(signatures, members, leaders, min_similarity)
        found.append((members[alike], leaders[alike]))
        members = members[~alike]
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    left, right = zip(*found, strict=True)
    return np.concatenate(left), np.concatenate(right)


class Forest:
    """Clusters of positions from edges that come in blocks; holds members of clusters only.

    Two numbers of 8 bytes for each of them, and up to 60 bytes while a block is added; about a
    microsecond per edge. Blocks and their order do not change the result.
    """

    def __init__(self) -> None:
        self._nodes = np.empty(0, dtype=np.int64)  # ascending
        self._first = np.empty(0, dtype=np.int64)  # index of each node's first one

    def add(self, left: Positions, right: Positions) -> None:
        """Make the clusters of left[i] and right[i] one, for each i."""
        found, place = np.unique(np.concatenate([left, right]), return_inverse=True)
        self._make_room(found)
        # Sorted questions are answered much faster than those in the order of the edges.
        own = self._first[np.searchsorted(self._nodes, found)]
        # Only the first ones of clusters that meet are joined; all nodes then follow in one step.
        firsts, place_of_first = np.unique(own, return_inverse=True)
        a, b = np.split(place_of_first[place], 2)
        joined = _join(np.arange(len(firsts), dtype=np.int64), a, b)
        moved = np.arange(len(self._nodes), dtype=np.int64)
        moved[firsts] = firsts[joined]
        self._first = moved[self._first]

    def _make_room(self, found: Positions) -> None:
        """Add those of `found`, ascending, that are no nodes yet, as clusters of their own."""
        old = self._nodes
        place = np.searchsorted(old, found)
        is_known = np.zeros(len(found), dtype=bool)
        inside = place < len(old)
        is_known[inside] = old[place[inside]] == found[inside]
        new = found[~is_known]
        if not len(new):
            return
        # Where each lies among both together.
        of_old = np.arange(len(old)) + np.searchsorted(new, old)
        of_new = np.arange(len(new)) + place[~is_known]
        nodes = np.empty(len(old) + len(new), dtype=np.int64)
        first = np.empty_like(nodes)
        nodes[of_old], nodes[of_new] = old, new
        first[of_old], first[of_new] = of_old[self._first], of_new
        self._nodes, self._first = nodes, first

    def losers(self) -> tuple[Positions, Positions]:
        """Every position that is not the first of its cluster, ascending, and which one is."""
        is_loser = self._first != np.arange(len(self._first))
        return self._nodes[is_loser], self._nodes[self._first[is_loser]]


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
