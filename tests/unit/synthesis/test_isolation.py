"""Rows that kill engines are found by halving, whatever their number and place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.synthesis.isolation import Crash, max_crashes_of_one_row, plan_attempt


def run_shard(num_rows: int, fatal: set[int], patience: int) -> tuple[set[int], int]:
    """Attempts until one gets through: (rows given up, deaths of the engine)."""
    crashes: list[Crash] = []
    while True:
        attempt = plan_attempt(num_rows, crashes, patience)
        covered = sorted(
            [
                *attempt.crashing,
                *(i for start, stop in attempt.segments for i in range(start, stop)),
            ]
        )
        assert covered == list(range(num_rows))  # each row once, in every attempt
        for start, stop in attempt.segments:
            if fatal & set(range(start, stop)):
                crashes.append(Crash(0, start, stop, attempt.alone))
                break
        else:
            return set(attempt.crashing), len(crashes)


@settings(deadline=None)
@given(st.integers(1, 200), st.data(), st.integers(1, 3))
def test_exactly_the_fatal_rows_are_given_up(num_rows: int, data, patience: int) -> None:
    fatal = data.draw(st.sets(st.integers(0, num_rows - 1), max_size=4))
    given_up, num_deaths = run_shard(num_rows, fatal, patience)
    assert given_up == fatal
    assert num_deaths <= patience + len(fatal) * max_crashes_of_one_row(num_rows, patience)


def test_one_bad_row_of_a_thousand_costs_a_known_number_of_engines() -> None:
    given_up, num_deaths = run_shard(1000, {613}, 2)
    assert given_up == {613}
    assert num_deaths <= max_crashes_of_one_row(1000, 2) == 14


def test_deaths_in_company_accuse_nobody() -> None:
    """Another shard's row killed the engine they shared: the innocent loses no row."""
    crashes = [Crash(0, 0, 10, alone=False)] * 5
    attempt = plan_attempt(10, crashes, 2)
    assert attempt.alone and attempt.segments == ((0, 10),) and attempt.crashing == ()


def test_a_first_death_changes_nothing() -> None:
    attempt = plan_attempt(10, [Crash(0, 0, 10, alone=False)], 2)
    assert not attempt.alone and attempt.segments == ((0, 10),)


def test_the_accused_go_first() -> None:
    crashes = [Crash(0, 0, 8, alone=False), Crash(0, 0, 8, True), Crash(0, 0, 4, True)]
    assert plan_attempt(8, crashes, 1).segments == ((0, 2), (2, 4), (4, 8))
