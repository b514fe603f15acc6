"""Finding the row that kills its engine, by halving: what to run next, as a function of the past.

An engine that dies takes every row that it held with it, and says nothing of the cause. Crashes of
a shard whose rows shared the engine with others prove little, so a shard first gets a few ordinary
attempts. After those its rows run alone: a crash then lies in the segment that ran, which is cut in
two, until a single row is left. That row is rejected, all others become what they would have been.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Crash:
    """An engine died while it held rows [start, stop) of a shard.

    `alone` is true when it held no others, so that one of these rows is the cause.
    """

    shard_id: int
    start: int
    stop: int
    alone: bool


@dataclass(frozen=True)
class Attempt:
    """How to run a shard: `segments` [start, stop) one after another, without `crashing` rows."""

    alone: bool
    segments: tuple[tuple[int, int], ...]
    crashing: tuple[int, ...] = ()


def plan_attempt(num_rows: int, crashes: Iterable[Crash], patience: int) -> Attempt:
    """The next attempt at a shard of `num_rows` rows that went through `crashes`.

    Args:
        patience: ordinary attempts before rows run alone, and crashes of a single row alone before
            it is given up; at least 1. An engine can die for reasons that are not in the row.
    """
    crashes = list(crashes)
    if sum(not crash.alone for crash in crashes) < patience:
        return Attempt(alone=False, segments=((0, num_rows),))
    num_crashes = Counter((crash.start, crash.stop) for crash in crashes if crash.alone)
    segments, crashing, stack = [], [], [(0, num_rows)]
    while stack:
        start, stop = segment = stack.pop()
        if stop - start == 1 and num_crashes[segment] >= patience:
            crashing.append(start)
        elif stop - start > 1 and num_crashes[segment]:
            middle = (start + stop) // 2
            stack += [(start, middle), (middle, stop)]
        else:
            segments.append(segment)
    # The smallest segments are the last ones found guilty. They go first: another crash then costs
    # no work on the rows that are innocent.
    segments.sort(key=lambda segment: (segment[1] - segment[0], segment[0]))
    return Attempt(alone=True, segments=tuple(segments), crashing=tuple(sorted(crashing)))


def max_crashes_of_one_row(num_rows: int, patience: int) -> int:
    """Deaths that one bad row among `num_rows` can cause before it is out."""
    return 2 * patience + max(0, num_rows - 1).bit_length()
