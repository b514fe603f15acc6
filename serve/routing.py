"""Which replica scores a request: the one that has its prompt in the cache, unless it is too busy.

Each prompt ranks the replicas by a hash of both (rendezvous hashing), so every router agrees on the
order, and a replica that comes or goes moves only its own share of the prompts. A replica with more
than its bounded share of the work in flight is passed over: a popular prompt spreads to the next
ones in its order (consistent hashing with bounded loads, Mirrokni et al. 2016).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_BOUND = 1.25  # times the mean


def ranked(key: bytes, loads: Mapping[str, int], cost: int) -> list[str]:
    """Names of replicas, the best first.

    Args:
        key: what requests with the same cache content have in common.
        loads: work in flight of each replica, in the unit of `cost`.
    """
    if not loads:
        return []
    order = sorted(loads, key=lambda name: _weight(key, name), reverse=True)
    bound = max(_BOUND * (sum(loads.values()) + cost) / len(loads), cost)
    free = [name for name in order if loads[name] + cost <= bound]
    return free + sorted((name for name in order if name not in free), key=lambda name: loads[name])


def _weight(key: bytes, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), key=key[:64], digest_size=8).digest()


def key_of(prompt: object) -> bytes:
    """Of a prompt as it came in a request."""
    return hashlib.blake2b(repr(prompt).encode("utf-8", "surrogatepass"), digest_size=32).digest()
