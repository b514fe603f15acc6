"""Devices are dealt so that no pool waits for another more than it must."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codepmp_ray.errors import ResourceError
from codepmp_ray.synthesis.capacity import (
    PoolRate,
    device_hours,
    pace_of,
    split_devices,
    steady_window,
)


def test_a_strong_model_four_times_slower_gets_four_times_the_engines() -> None:
    rates = [PoolRate("strong", 1, 1.0, 400), PoolRate("weak", 1, 4.0, 800)]
    split = split_devices(rates, 10)
    assert split.num_engines == {"strong": 8, "weak": 2} and split.rows_per_s == 8
    assert split.busy == {"strong": 1.0, "weak": 1.0}
    assert device_hours(split, 28_800) == 10.0


def test_engines_of_several_devices() -> None:
    rates = [PoolRate("strong", 4, 1.0, 400), PoolRate("weak", 1, 1.0, 400)]
    split = split_devices(rates, 11)
    assert split.num_engines == {"strong": 2, "weak": 2} and split.devices == 10


def test_too_few_devices_are_refused_with_numbers() -> None:
    rates = [PoolRate("strong", 2, 1.0, 1), PoolRate("weak", 1, 1.0, 1)]
    with pytest.raises(ResourceError, match="takes 3 devices, there are 2"):
        split_devices(rates, 2)


@given(
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(6, 24),
)
def test_no_other_split_is_faster(speeds, sizes, num_devices) -> None:
    rates = [
        PoolRate(name, size, speed, 1)
        for name, size, speed in zip("ab", sizes, speeds, strict=True)
    ]
    best = max(
        min(n * rates[0].rows_per_s, m * rates[1].rows_per_s)
        for n, m in itertools.product(range(1, 25), repeat=2)
        if n * sizes[0] + m * sizes[1] <= num_devices
    )
    assert split_devices(rates, num_devices).rows_per_s == pytest.approx(best)


def test_ramp_and_tail_do_not_count() -> None:
    """An engine that starts rows one by one, has ten at once and takes a second for each ten."""
    starts = [0.1 * i for i in range(10)] + [1.0 + 0.1 * i for i in range(90)]
    ends = [1.0 + 0.1 * i for i in range(100)]
    begin, end, is_steady = steady_window(starts, ends, 10)
    assert is_steady and begin == pytest.approx(1.9) and end == pytest.approx(9.9)
    num = sum(begin < moment <= end for moment in ends)
    assert num / (end - begin) == pytest.approx(10)
    assert 100 / (ends[-1] - starts[0]) < 9.2  # what the whole time says
    begin, end, is_steady = steady_window(starts, ends, 50)
    assert (begin, end, is_steady) == (0.0, ends[-1], False)
    assert steady_window([1.0], [1.0], 1)[1] > 1.0


def test_engines_on_the_same_cores_take_turns() -> None:
    rates = [PoolRate("strong", 1, 2.0, 1), PoolRate("weak", 1, 6.0, 1)]
    assert pace_of(rates, {"strong": 3, "weak": 1}, shares_cores=False) == 6.0
    assert pace_of(rates, {"strong": 3, "weak": 1}, shares_cores=True) == pytest.approx(1.5)
