"""Shares, intervals and comparisons of studies, by hand and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from codepmp_ray.evaluation.statistics import holm
from codepmp_ray.studies import measures


def test_a_problems_share_counts_its_pairs_and_halves_ties() -> None:
    problems = ["a", "a", "b", "b", "a"]
    names, shares = measures.pair_shares([1, 2, 5, 0, 0], [0, 2, 4, 1, 3], problems)
    assert names == ["a", "b"]
    assert shares.tolist() == [pytest.approx((1 + 0.5 + 0) / 3), 0.5]


def test_multiple_choice_is_right_when_no_other_option_beats_it() -> None:
    problems = ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    chosen = [1.0] * 9
    rejected = [0, 0, 0, 0, 2, 0, 1, 1, 0]
    assert measures.all_pairs_right(chosen, rejected, problems)[1].tolist() == [
        1.0,
        0.0,
        pytest.approx(1 / 3),  # level with two others: one of three is picked
    ]


@pytest.mark.parametrize("num", [1, 2])
def test_few_trainings_have_a_figure_and_no_interval_p_value_or_power(num: int) -> None:
    values = np.random.default_rng(0).random((num, 50))
    assert measures.interval(values, 0.95).low is None
    found = measures.compare("", values + 0.5, values, 0.95, 0.1)
    assert found.difference.mean == pytest.approx(0.5) and found.difference.low is None
    assert (found.p_value, found.detectable, found.power_for_paper) == (None, None, None)
    assert (found.num_seeds, found.num_problems, found.paper_difference) == (num, 50, 0.1)


def test_a_comparison_of_trainings_is_told_by_them() -> None:
    generator = np.random.default_rng(2)
    base = generator.random((4, 200))
    found = measures.compare("q", base + 0.1, base + generator.normal(0, 0.1, (4, 200)), 0.95, 0.1)
    assert found.p_value is not None and found.p_value < 0.05 and found.num_seeds == 4
    assert found.power_for_paper is not None and found.detectable is not None


def test_what_is_at_hand_is_held_against_every_training_of_an_arm() -> None:
    """Its interval covers the difference to the arm's mean over trainings, as often as it says."""
    generator = np.random.default_rng(3)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        problems = generator.normal(0.5, 0.2, 100)
        seeds = generator.normal(0, 0.05, (4, 1))
        one = problems + 0.1 + generator.normal(0, 0.1, 100)
        return one, problems + seeds + generator.normal(0, 0.1, (4, 100))

    covered = 0
    for _ in range(400):
        found = measures.compare("", *draw(), 0.95)
        assert found.difference.low is not None and found.difference.high is not None
        covered += found.difference.low <= 0.1 <= found.difference.high
    assert 0.92 <= covered / 400 <= 0.99
    one, arm = draw()
    found = measures.compare("", one, arm, 0.95)
    assert found.difference.mean == pytest.approx(one.mean() - arm.mean())
    assert measures.compare("", one, arm[:1], 0.95).p_value is None


def test_two_things_at_hand_are_compared_over_problems_alone() -> None:
    generator = np.random.default_rng(4)
    one = (generator.random(80) < 0.7).astype(float)
    found = measures.compare("", one, np.zeros(80), 0.95)
    assert found.num_seeds == 0 and found.p_value is not None and found.p_value < 1e-6
    same = measures.compare("", one, one, 0.95)
    assert same.p_value == 1.0 and same.detectable is not None and same.detectable > 0
    shown = measures.interval(one, 0.95)
    assert shown.low is not None and shown.low < shown.mean < 1
    everything = measures.interval(np.ones(20), 0.95)
    assert everything.high == 1.0 and everything.low is not None and 0.8 < everything.low < 0.9


def test_no_difference_on_average_is_a_p_value_of_one_and_no_more() -> None:
    for num in range(5, 60):
        gaps = np.where(np.arange(2 * num) % 2, 0.1, -0.1)
        found = measures.compare("", np.tile(0.5 + gaps, (3, 1)), np.full((3, 2 * num), 0.5), 0.95)
        assert found.p_value is not None and 1 - 1e-6 < found.p_value <= 1.0
        holm([found.p_value])


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = measures.mean_interval(values, 2_000, 0.95)
    assert found.low is not None and found.high is not None
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * 10 / 20, rel=0.15)
