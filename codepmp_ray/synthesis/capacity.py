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
    """

    name: str
    devices: float
    rows_per_s: float
    tokens_per_s: float


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
    pace = min(num_engines[rate.name] * rate.rows_per_s for rate in rates)
    busy = {rate.name: pace / (num_engines[rate.name] * rate.rows_per_s) for rate in rates}
    return Split(num_engines, used, pace, busy)


def device_hours(split: Split, num_rows: int) -> float:
    """Hours of devices, idle ones included, that `num_rows` snippets take."""
    return num_rows / split.rows_per_s / 3600 * split.devices
