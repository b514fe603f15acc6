"""Intervals, power and corrections of studies, against simulation and by hand."""

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


@pytest.mark.parametrize(
    ("share", "df", "expected"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 10, 2.228),
        (0.975, 1e6, 1.960),
        (0.9, 5, 1.476),
    ],
)
def test_students_t_is_that_of_the_tables(share: float, df: float, expected: float) -> None:
    assert measures.t_quantile(share, df) == pytest.approx(expected, abs=2e-3)
    assert measures.t_cdf(expected, df) == pytest.approx(share, abs=2e-4)


@pytest.mark.parametrize("seed_noise", [0.0, 0.05])
def test_an_interval_covers_the_truth_as_often_as_it_says(seed_noise: float) -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        seeds = generator.normal(0, seed_noise, (4, 1))
        problems = generator.normal(0.6, 0.3, (1, 80))
        found = measures.spread(seeds + problems, 0.95).value
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.6 <= found.high
    assert 0.92 <= covered / 600 <= 0.985


def test_power_is_that_of_simulated_studies() -> None:
    """At the difference that is called detectable, four of five studies see it."""
    generator = np.random.default_rng(1)
    detectable = measures.compare("", *_study(generator, 0.0), 0.95).detectable
    seen = 0
    for _ in range(500):
        found = measures.compare("", *_study(generator, detectable), 0.95, detectable)
        assert found.power_for_paper is not None and 0.6 < found.power_for_paper < 0.95
        seen += found.p_value < 0.05
    assert 0.74 <= seen / 500 <= 0.86


def _study(generator: np.random.Generator, difference: float) -> tuple[np.ndarray, np.ndarray]:
    base = generator.normal(0.5, 0.2, (1, 200))
    noise = generator.normal(0, 0.2, (2, 1, 200))
    return base + noise[0] + difference, base + noise[1]


def test_a_verdict_claims_no_more_than_the_interval() -> None:
    generator = np.random.default_rng(2)
    none = measures.compare("", *_study(generator, 0.0), 0.95)
    large = measures.compare("", *_study(generator, 0.3), 0.95)
    assert none.verdict.startswith("too small to tell") and large.verdict.startswith("higher")
    assert "one training each" in large.verdict
    equal = np.ones((2, 30))
    same = measures.compare("", equal, equal, 0.95)
    assert same.p_value > 0.05 and same.detectable > 0.05


def test_a_model_at_hand_is_held_against_every_training_of_an_arm() -> None:
    """Its interval covers the difference to the arm's mean over trainings, as often as it says."""
    generator = np.random.default_rng(3)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        problems = generator.normal(0.5, 0.2, (1, 100))
        seeds = generator.normal(0, 0.05, (4, 1))
        one = problems + 0.1 + generator.normal(0, 0.1, (1, 100))
        return one, problems + seeds + generator.normal(0, 0.1, (4, 100))

    covered = 0
    for _ in range(600):
        found = measures.compare_given("", *draw(), 0.95)
        assert found.difference.low is not None and found.difference.high is not None
        covered += found.difference.low <= 0.1 <= found.difference.high
    assert 0.92 <= covered / 600 <= 0.985
    one, arm = draw()
    found = measures.compare_given("", one, arm, 0.95)
    assert (found.num_seeds, found.num_problems) == (1, 100)
    assert found.difference.mean == pytest.approx(one.mean() - arm.mean())
    assert "not trained alike" in found.verdict and "one training each" not in found.verdict


def test_no_difference_on_average_is_a_p_value_of_one_and_no_more() -> None:
    for num in range(5, 60):
        gaps = np.where(np.arange(2 * num) % 2, 0.1, -0.1)
        found = measures.compare("", 0.5 + gaps, np.full(2 * num, 0.5), 0.95)
        assert 1 - 1e-6 < found.p_value <= 1.0
        holm([found.p_value])


def test_equal_shares_are_no_certainty() -> None:
    found = measures.interval(np.ones((3, 20)), 0.95)
    assert found.high == 1.0 and found.low is not None and 0.8 < found.low < 0.9


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = measures.mean_interval(values, 2_000, 0.95)
    assert found.low is not None and found.high is not None
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * 10 / 20, rel=0.15)
