"""A shard that is late with one engine is given to another too: a slow node does not hold the job.

What a pool's engines take for a shard is known once some are done. A shard that takes several times
as long is read once more, at the end of the queue, and goes to whichever engine is free; the ledger
lets the first of both commit. When every shard is committed the execution ends, whoever is still at
work on a copy, hung or cut off.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import statistics
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_logger = logging.getLogger(__name__)
_NUM_REMEMBERED = 1_000  # last times of a pool, of which the median is taken
_COPIES_SHARE, _LEAST_COPIES = 0.1, 4


@dataclass(frozen=True)
class LatePolicy:
    """When a shard is late.

    Attributes:
        factor: times the median of what its pool's engines took.
        least_s: never before that.
        num_known: shards that have to be done before anything is called late.
        check_s: between two looks.
    """

    factor: float = 4.0
    least_s: float = 60.0
    num_known: int = 4
    check_s: float = 5.0


@dataclass(frozen=True)
class Late:
    """A shard that is late: with an engine of `pool`, or in the queue before one."""

    shard_id: int
    pool: str
    waited_s: float
    usual_s: float


class _Pool:
    """Shards of one pool by the time since which they are with an engine, or in its queue.

    A queue is as long as the work is large, so waiting there is nothing to wonder at. But shards
    that came later are with engines before this one only if it stands before a single engine.
    """

    def __init__(self) -> None:
        self.since: dict[int, float] = {}
        self.took: deque[float] = deque(maxlen=_NUM_REMEMBERED)
        self._number: dict[int, int] = {}  # in the order of their coming
        self._overtaken: dict[int, float] = {}
        self._next = itertools.count()
        self._last_started = -1

    def queued(self, shard_id: int) -> None:
        self._number[shard_id] = next(self._next)
        self._overtaken.pop(shard_id, None)

    def started(self, shard_id: int, now_s: float) -> None:
        self._last_started = max(self._last_started, self._number.pop(shard_id, -1))
        self._overtaken.pop(shard_id, None)
        self.since[shard_id] = now_s

    def finished(self, shard_id: int, now_s: float) -> None:
        if (since_s := self.since.pop(shard_id, None)) is not None:
            self.took.append(now_s - since_s)

    def waits(self, now_s: float) -> dict[int, float]:
        """Shard -> seconds with an engine, or since it was first seen to be overtaken."""
        for shard_id, number in self._number.items():
            if number < self._last_started:
                self._overtaken.setdefault(shard_id, now_s)
        waits = {shard_id: now_s - since_s for shard_id, since_s in self._overtaken.items()}
        return waits | {shard_id: now_s - since_s for shard_id, since_s in self.since.items()}

    def restart(self, shard_id: int, now_s: float) -> None:
        """Count from now on."""
        for times in (self.since, self._overtaken):
            if shard_id in times:
                times[shard_id] = now_s

    def forget(self, shard_id: int) -> None:
        for known in (self.since, self._number, self._overtaken):
            known.pop(shard_id, None)


class LateBook:
    """Where shards are since when. Times are seconds of any one clock.

    Args:
        pools: names, in the order in which shards go through them.
    """

    def __init__(self, pools: Sequence[str], policy: LatePolicy) -> None:
        self._policy = policy
        self._names = list(pools)
        self._pools = {name: _Pool() for name in pools}
        self._done: set[int] = set()

    def read(self, shard_id: int) -> None:
        """The shard stands in the first queue, again perhaps: the last time counts."""
        if self._names:
            self._pools[self._names[0]].queued(shard_id)

    def started(self, pool: str, shard_id: int, now_s: float) -> None:
        """An engine has the shard, again perhaps."""
        self._pools[pool].started(shard_id, now_s)

    def finished(self, pool: str, shard_id: int, now_s: float) -> None:
        self._pools[pool].finished(shard_id, now_s)
        if following := self._names[self._names.index(pool) + 1 :]:
            self._pools[following[0]].queued(shard_id)

    def forgotten(self, pool: str, shard_ids: Iterable[int]) -> None:
        """They are with no engine now, or shall be with no other."""
        for shard_id in shard_ids:
            self._pools[pool].forget(shard_id)

    def committed(self, shard_id: int) -> None:
        self._done.add(shard_id)
        for pool in self._pools.values():
            pool.forget(shard_id)

    def take(self, now_s: float) -> Late | None:
        """The shard that is most late, if any; it has as much time again before it comes again."""
        late = max(self._late(now_s), key=lambda one: one.waited_s / one.usual_s, default=None)
        if late is not None:
            self._pools[late.pool].restart(late.shard_id, now_s)
        return late

    def _late(self, now_s: float) -> Iterable[Late]:
        for name, pool in self._pools.items():
            if len(pool.took) < self._policy.num_known:
                continue
            usual_s = max(statistics.median(pool.took), 1e-9)
            limit_s = max(self._policy.least_s, self._policy.factor * usual_s)
            for shard_id, waited_s in pool.waits(now_s).items():
                if waited_s > limit_s and shard_id not in self._done:
                    yield Late(shard_id, name, waited_s, usual_s)


class LateShards:
    """The book of one execution, for all its workers. Pickled to them."""

    def __init__(self, label: str, pools: Sequence[str], policy: LatePolicy) -> None:
        # Beside the driver: it is gone when the job is gone, and only then.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor: Any = _Keeper.options(scheduling_strategy=here).remote(label, pools, policy)

    def read(self, shard_id: int) -> None:
        self._actor.read.remote(shard_id)

    def started(self, pool: str, shard_id: int) -> None:
        self._actor.started.remote(pool, shard_id)

    def finished(self, pool: str, shard_id: int) -> None:
        self._actor.finished.remote(pool, shard_id)

    async def forgotten(self, pool: str, shard_ids: Iterable[int]) -> None:
        """Returns when it is known, for who is about to leave."""
        try:
            await asyncio.wait_for(self._actor.forgotten.remote(pool, list(shard_ids)), 5.0)
        except (RayError, TimeoutError):
            _logger.info("Nobody heard of the shards that left pool %s.", pool)

    def committed(self, shard_id: int) -> None:
        self._actor.committed.remote(shard_id)

    def next(self) -> int | None:
        """Waits until a shard is late, perhaps for ever; None when the execution has ended."""
        try:
            return ray.get(self._actor.next.remote())
        except RayError:
            return None

    def close(self) -> None:
        ray.kill(self._actor)


@ray.remote(num_cpus=0)
class _Keeper:
    """The one copy of the book."""

    def __init__(self, label: str, pools: Sequence[str], policy: LatePolicy) -> None:
        self._label, self._policy = label, policy
        self._book = LateBook(pools, policy)

    async def read(self, shard_id: int) -> None:
        self._book.read(shard_id)

    async def started(self, pool: str, shard_id: int) -> None:
        self._book.started(pool, shard_id, time.monotonic())

    async def finished(self, pool: str, shard_id: int) -> None:
        self._book.finished(pool, shard_id, time.monotonic())

    async def forgotten(self, pool: str, shard_ids: list[int]) -> None:
        self._book.forgotten(pool, shard_ids)

    async def committed(self, shard_id: int) -> None:
        self._book.committed(shard_id)

    async def next(self) -> int:
        while (late := self._book.take(time.monotonic())) is None:
            await asyncio.sleep(self._policy.check_s)
        print(
            f"{self._label}: shard {late.shard_id} has waited {late.waited_s:.0f} s for an engine "
            f"of pool {late.pool} that others leave after {late.usual_s:.0f} s; it is read again.",
            flush=True,
        )
        return late.shard_id


def num_copies(num_shards: int) -> int:
    """How many shards of an execution may be made a second time."""
    return min(num_shards, max(_LEAST_COPIES, int(_COPIES_SHARE * num_shards)))
