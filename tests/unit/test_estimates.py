"""What trainings say: intervals that cover, no result below three, and never surer with fewer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.estimates import MIN_TRAININGS, estimate


def _arms(
    generator: np.random.Generator, num: int, spread: float, units: int = 260, shift: float = 0.0
) -> np.ndarray:
    """Differences [trainings, units] of two recipes that are alike but for `shift`: outcomes of
    questions by difficulty, each training with a level and with noise of its own."""
    difficulty = generator.normal(0, 1.2, units)
    sides = []
    for gain in (shift, 0.0):
        chance = 1 / (1 + np.exp(-(1.4 + difficulty + generator.normal(0, 0.6, (num, units)))))
        level = generator.normal(gain, spread, (num, 1))
        sides.append((generator.random((num, units)) < np.clip(chance + level, 0, 1)).astype(float))
    return sides[0] - sides[1]


@pytest.mark.parametrize("num", [1, 2])
def test_fewer_than_three_trainings_are_no_result_whatever_they_show(num: int) -> None:
    assert num < MIN_TRAININGS
    found = estimate(np.ones((num, 500)))
    assert not found.is_known and found.p_value == 1.0
    limits = found.interval(0.95)
    assert (limits.low, limits.high) == (-math.inf, math.inf)
    assert math.isinf(found.detectable(0.95)) and found.power(0.5, 0.95) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.05, 0.085])
def test_nothing_is_called_a_difference_as_seldom_as_is_said_and_fewer_are_never_surer(
    spread: float,
) -> None:
    """The false positives of the product's own estimate, at spreads of trainings that were seen."""
    generator = np.random.default_rng(0)
    halves = []
    for num in (3, 5, 8, 12):
        found = [estimate(_arms(generator, num, spread)) for _ in range(400)]
        wrong = np.mean([one.p_value < 0.05 for one in found])
        assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400), (num, wrong)
        limits = [one.interval(0.95) for one in found]
        halves.append(np.mean([(limit.high - limit.low) / 2 for limit in limits]))
    assert halves == sorted(halves, reverse=True)


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_an_interval_covers_the_truth_as_often_as_it_says(spread: float) -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        seeds = generator.normal(0, spread, (4, 1))
        found = estimate(seeds + generator.normal(0.6, 0.3, (1, 80))).interval(0.95)
        covered += found.low <= 0.6 <= found.high
    assert covered / 600 >= 0.92
    assert spread == 0 or covered / 600 <= 0.985


def test_four_of_five_studies_see_the_difference_that_is_called_detectable() -> None:
    generator = np.random.default_rng(1)

    def study(shift: float) -> np.ndarray:
        return shift + generator.normal(0, 0.05, (6, 1)) + generator.normal(0, 0.1, (6, 200))

    detectable = float(np.median([estimate(study(0.0)).detectable(0.95) for _ in range(200)]))
    seen = np.mean([estimate(study(detectable)).p_value < 0.05 for _ in range(500)])
    assert 0.7 <= seen <= 0.9
    assert estimate(study(0.0)).power(10 * detectable, 0.95) > 0.99


def test_equal_figures_are_no_certainty() -> None:
    found = estimate(np.zeros((4, 24)))
    limits = found.interval(0.95)
    assert (limits.low, limits.high) == pytest.approx((-0.1425, 0.1425), abs=1e-4)
    assert found.p_value == 1.0
    assert not estimate(np.ones((4, 1))).is_known  # of one question nothing is known


@pytest.mark.parametrize("values", [np.ones(3), np.ones((3, 0)), np.full((3, 3), np.nan)])
def test_what_is_no_table_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="without gaps"):
        estimate(values)
