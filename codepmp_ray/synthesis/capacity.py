"""How many engines of each pool, how long, how much: arithmetic on measured rates.

Every snippet passes every pool, so the slowest pool sets the pace, and what others could do beyond
it is idle. Engines are dealt out one by one to whichever pool is slowest.
"""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.errors import ResourceError


@dataclass(frozen=True)
class PoolRate:
    """One engine of a pool, measured at full load.

    Attributes:
        devices: GPUs (or CPUs, where there are none) that one engine takes.
        rows_per_s: snippets that it takes through its hops, per second.
        tokens_per_s: tokens that it generates, per second.
        start_s: seconds until it takes its first row.
        is_steady: whether it was measured while it was full; if not, its pace is a lower bound.
    """

    name: str
    devices: float
    rows_per_s: float
    tokens_per_s: float
    start_s: float = 0.0
    is_steady: bool = True


def steady_window(
    started_s: list[float], ended_s: list[float], num_at_once: int
) -> tuple[float, float, bool]:
    """(begin, end, whether an engine that takes `num_at_once` rows was full all the time).

    From when the first rows have made way for others until the last row begins; the whole time
    where there are too few rows for that.
    """
    starts, ends = sorted(started_s), sorted(ended_s)
    if len(ends) >= 3 * num_at_once and ends[num_at_once - 1] < starts[-1]:
        return ends[num_at_once - 1], starts[-1], True
    return starts[0], max(ends[-1], starts[0] + 1e-9), False


def pace_of(rates: list[PoolRate], num_engines: dict[str, int], *, shares_cores: bool) -> float:
    """Snippets per second of these pools together.

    `shares_cores` is for engines that compute on the same cores: one works while others wait.
    """
    if shares_cores:
        return 1 / sum(1 / rate.rows_per_s for rate in rates)
    return min(num_engines[rate.name] * rate.rows_per_s for rate in rates)


@dataclass(frozen=True)
class Split:
    """`num_engines` per pool name; `rows_per_s` of the whole, `busy` share of each pool's time."""

    num_engines: dict[str, int]
    devices: float
    rows_per_s: float
    busy: dict[str, float]


def split_devices(rates: list[PoolRate], num_devices: float) -> Split:
    """The split of `num_devices` that gives the highest pace.

    Raises:
        ResourceError: when there is not one engine's worth for every pool.
    """
    num_engines = {rate.name: 1 for rate in rates}
    used = sum(rate.devices for rate in rates)
    if used > num_devices + 1e-9:
        raise ResourceError(
            f"One engine per pool takes {used:g} devices, there are {num_devices:g}.",
            "Plan for more devices (planning.num_gpus) or smaller engines.",
        )
    while True:
        slowest = min(rates, key=lambda rate: num_engines[rate.name] * rate.rows_per_s)
        if used + slowest.devices > num_devices + 1e-9:
            break
        num_engines[slowest.name] += 1
        used += slowest.devices
    pace = pace_of(rates, num_engines, shares_cores=False)
    busy = {rate.name: pace / (num_engines[rate.name] * rate.rows_per_s) for rate in rates}
    return Split(num_engines, used, pace, busy)


def device_hours(split: Split, num_rows: int) -> float:
    """Hours of devices, idle ones included, that `num_rows` snippets take."""
    return num_rows / split.rows_per_s / 3600 * split.devices
