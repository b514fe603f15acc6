"""A slow or hung engine does not hold a job: its shards are begun again elsewhere.

What a pool's engines take for a shard is known once most shards are done. When all that is left has
been with its engines for several times as long, and nothing else begins, the execution is ended and
what is left runs in a new one, on other nodes if there are any. Until then a slow engine costs no
more than its own share. No shard is given to two engines at once (one on a node that was cut off
may go on; the ledger knows), and each time the patience doubles: a shard that is large, not late,
gets its time.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from codepmp_ray.cluster.connect import beside_driver

_LEAST_DONE = 4


@dataclass(frozen=True)
class LatePolicy:
    """When a shard is late.

    Attributes:
        factor: times what is usual, which is the median of its pool and the start of an engine.
        least_s: never before that.
        check_s: between two looks.
    """

    factor: float = 4.0
    least_s: float = 60.0
    check_s: float = 5.0

    def more_patient(self) -> LatePolicy:
        return replace(self, factor=2 * self.factor, least_s=2 * self.least_s)


@dataclass(frozen=True)
class Holder:
    """An engine that has a shard. `actor` is a handle: kept no longer than the engine is busy."""

    node_id: str
    actor: Any = None


@dataclass(frozen=True)
class Late:
    """One shard that is late with `holder` after `waited_s`; others take `usual_s`."""

    shard_id: int
    holder: Holder
    waited_s: float
    usual_s: float


class LateBook:
    """Who has which shard since when, in one execution. Times are seconds of any one clock."""

    def __init__(self, num_shards: int, policy: LatePolicy) -> None:
        self._num_shards, self._policy = num_shards, policy
        self._held: dict[tuple[str, int], tuple[float, Holder]] = {}
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        self._start_s = 0.0
        self._last_start_s = 0.0

    def started(
        self, pool: str, shard_id: int, holder: Holder, engine_start_s: float, now_s: float
    ) -> None:
        """`holder` has the shard; again, perhaps, after it or another died."""
        self._held[pool, shard_id] = now_s, holder
        self._start_s = max(self._start_s, engine_start_s)
        self._last_start_s = now_s

    def finished(self, pool: str, shard_id: int, now_s: float) -> None:
        held = self._held.pop((pool, shard_id), None)
        if held is not None:
            self._took[pool].append(now_s - held[0])

    def late(self, now_s: float) -> list[Late]:
        """All that engines have, if all of it is late and nothing was begun for as long; or [].

        Half of the shards, and a few, have to be through a pool before anything there is late.
        """
        usual_s = {
            pool: statistics.median(took)
            for pool, took in self._took.items()
            if len(took) >= max(_LEAST_DONE, self._num_shards / 2)
        }
        found = []
        for (pool, shard_id), (since_s, holder) in self._held.items():
            if pool not in usual_s:
                return []
            limit_s = self._policy.factor * (usual_s[pool] + self._start_s)
            limit_s = max(limit_s, self._policy.least_s)
            # Others that wait for a free engine would have begun meanwhile.
            if now_s - max(since_s, self._last_start_s) <= limit_s:
                return []
            found.append(Late(shard_id, holder, now_s - since_s, usual_s[pool]))
        return found


class LateShards:
    """The book of one execution, where all its workers find it. Pickled to them."""

    def __init__(self, num_shards: int, policy: LatePolicy) -> None:
        keeper = _Keeper.options(scheduling_strategy=beside_driver())
        self._actor: Any = keeper.remote(num_shards, policy)

    def started(self, pool: str, shard_id: int, engine_start_s: float) -> None:
        """Called by the engine's actor."""
        context = ray.get_runtime_context()
        holder = Holder(context.get_node_id(), context.current_actor)
        self._actor.started.remote(pool, shard_id, holder, engine_start_s)

    def finished(self, pool: str, shard_id: int) -> None:
        self._actor.finished.remote(pool, shard_id)

    def late(self) -> list[Late]:
        return ray.get(self._actor.late.remote())

    def close(self) -> None:
        ray.kill(self._actor)


@ray.remote(num_cpus=0)
class _Keeper:
    """The one copy of the book."""

    def __init__(self, num_shards: int, policy: LatePolicy) -> None:
        self._book = LateBook(num_shards, policy)

    def started(self, pool: str, shard_id: int, holder: Holder, engine_start_s: float) -> None:
        self._book.started(pool, shard_id, holder, engine_start_s, time.monotonic())

    def finished(self, pool: str, shard_id: int) -> None:
        self._book.finished(pool, shard_id, time.monotonic())

    def late(self) -> list[Late]:
        return self._book.late(time.monotonic())


class LateWatch:
    """Ends an execution whose last shards are late, by killing the engines that have them.

    A context manager around the execution, for the driver. `late` are the shards it was ended for.
    """

    def __init__(self, label: str, num_shards: int, policy: LatePolicy) -> None:
        self._label, self._policy = label, policy
        self.shards = LateShards(num_shards, policy)
        self.late: list[Late] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="late shards", daemon=True)

    def __enter__(self) -> LateWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.shards.close()

    def _watch(self) -> None:
        while not self._ended.wait(self._policy.check_s):
            with suppress(RayError):  # without the keeper there is nobody to tell what is late
                if late := self.shards.late():
                    self._end(late)
                    return

    def _end(self, late: list[Late]) -> None:
        self.late = late
        nodes = ", ".join(sorted({one.holder.node_id[:8] for one in late}))
        waited_s, usual_s = max(one.waited_s for one in late), late[0].usual_s
        print(
            f"{self._label}: the last {len(late)} shards have been with engines of node {nodes} "
            f"for {waited_s:.0f} s, {usual_s:.0f} s being usual. What is left is begun again.",
            file=sys.stderr,
            flush=True,
        )
        for one in late:
            ray.kill(one.holder.actor)
