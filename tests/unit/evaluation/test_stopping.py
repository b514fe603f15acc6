"""Best-of-N that stops early: exact figures, a bound that holds, thresholds that are refused."""

import math
import re
from itertools import permutations

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics import StopSettings, best_of_k, fit_threshold
from codepmp_ray.evaluation.statistics.stopping import num_problems_needed, stopped, upper_mean


def by_hand(scores, passed, threshold, at_once):
    """Accuracy and answers drawn, over every order."""
    right, drawn = [], []
    for order in permutations(range(len(scores))):
        num = 0
        while num < len(order) and all(scores[i] < threshold for i in order[:num]):
            num = min(num + at_once, len(order))
        best = max(order[:num], key=lambda i: scores[i])  # the first of equal ones
        right.append(passed[best])
        drawn.append(num)
    return np.mean(right), np.mean(drawn)


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "scores", [[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 2.0, 2.0, 0.0], [1.0] * 4, [2.5]]
)
def test_accuracy_and_draws_are_those_of_every_order(scores, at_once):
    passed = [1.0, 0.0, 0.5, 0.0, 1.0][: len(scores)]
    limits = [-1.0, 1.0, 1.5, 2.0, 4.5, 5.0, 9.0]

    accuracy, drawn = stopped([scores], [passed], limits, at_once)

    wanted = [by_hand(scores, passed, limit, at_once) for limit in limits]
    np.testing.assert_allclose(np.stack([accuracy[0], drawn[0]], axis=1), wanted)


def test_pools_of_unequal_size_and_missing_rewards():
    scores = np.array([[1.0, math.nan, 3.0], [2.0, 9.0, 9.0], [0.0, 0.0, 0.0]])
    passed = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    present = np.array([[True] * 3, [True, False, False], [False] * 3])

    accuracy, drawn = stopped(scores, passed, [2.0, 50.0], 1, present, "last")

    np.testing.assert_allclose(accuracy, [[1, 1], [1, 1], [0, 0]])
    np.testing.assert_allclose(drawn, [[2, 3], [1, 1], [0, 0]])
    with pytest.raises(InputError, match="not a number"):
        stopped(scores, passed, [2.0], 1, present)


def test_a_threshold_that_nothing_reaches_is_best_of_all():
    generator = np.random.default_rng(0)
    scores, passed = generator.normal(size=(20, 9)), generator.integers(2, size=(20, 9))
    accuracy, drawn = stopped(scores, passed, [99.0])
    np.testing.assert_allclose(accuracy, best_of_k(scores, passed, [9]))
    assert (drawn == 9).all()


@pytest.mark.parametrize("at_once, limits", [(0, [1.0]), (1, [math.nan])])
def test_what_is_no_rule_is_refused(at_once, limits):
    with pytest.raises(InputError, match="at least 1"):
        stopped([[1.0]], [[1.0]], limits, at_once)


@pytest.mark.parametrize("share, size", [(0.02, 1.0), (0.04, 0.5), (0.3, 0.1)])
@pytest.mark.parametrize("num", [60, 250, 800])
def test_the_bound_is_below_the_true_loss_no_more_often_than_it_says(share, size, num):
    """Rare large losses, and gains as often as half of them; the bootstrap fails the first."""
    generator = np.random.default_rng(num)
    odds = [share, share / 2, 1 - 1.5 * share]
    draws = generator.choice([size, -size, 0.0], p=odds, size=(300, num))
    num_below = sum(upper_mean(row, 0.9) < share * size / 2 for row in draws)
    assert num_below <= 0.1 * 300 + 3 * math.sqrt(300 * 0.09)


def test_the_bound_of_nothing_lost_shrinks_with_the_problems():
    needed = num_problems_needed(0.02, 0.95)
    assert upper_mean(np.zeros(needed)) <= 0.02 < upper_mean(np.zeros(needed - 1))
    assert upper_mean(np.zeros(10)) > 0.2
    assert upper_mean(np.ones(500)) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InputError, match="between -1 and 1"):
        upper_mean([2.0])


def pools(num, strength, seed=0):
    """Rewards that tell right answers by `strength` standard deviations, 16 to a problem."""
    generator = np.random.default_rng(seed)
    chance = generator.beta(2, 2, size=(num, 1))
    passed = (generator.random((num, 16)) < chance).astype(float)
    return generator.normal(size=(num, 16)) + strength * passed, passed


def test_a_good_reward_saves_answers_within_the_bound():
    scores, passed = pools(1600, 6.0)

    found = fit_threshold(scores, passed)

    assert found["why_not"] == ""
    assert found["saved"]["low"] > 0.5
    assert found["loss"]["upper"] <= 0.02
    # What it promises holds on problems that were not there.
    others, marks = pools(3000, 6.0, seed=1)
    accuracy, drawn = stopped(others, marks, [found["threshold"]])
    assert float((best_of_k(others, marks, [16]) - accuracy).mean()) <= found["loss"]["upper"]
    assert found["saved"]["mean"] == pytest.approx(1 - drawn.mean() / 16, abs=0.03)


def test_figures_are_of_problems_that_the_threshold_was_not_chosen_on():
    """Right and wrong are turned round on the half that only the figures see."""
    scores, passed = pools(1600, 6.0)
    rows = np.random.default_rng(0).permutation(1600)
    held_out = rows[800:]
    passed[held_out] = 1 - passed[held_out]

    found = fit_threshold(scores, passed)

    assert found["threshold"] is None
    assert found["over_random"]["high"] < 0
    assert "does not beat a random pick" in found["why_not"]


@pytest.mark.parametrize(
    "num, strength, words",
    [
        (200, 6.0, "each half needs"),
        (1600, 0.0, "does not beat a random pick|no threshold saves"),
        (1600, -3.0, "does not beat a random pick"),
    ],
)
def test_what_cannot_be_promised_is_refused_in_words(num, strength, words):
    found = fit_threshold(*pools(num, strength))
    assert found["threshold"] is None
    assert re.search(words, found["why_not"])


def test_a_larger_loss_allowed_saves_more():
    scores, passed = pools(2000, 2.5)
    few, many = (
        fit_threshold(scores, passed, settings=StopSettings(max_loss=loss)) for loss in (0.02, 0.1)
    )
    assert many["saved"]["mean"] > few["saved"]["mean"] + 0.05
