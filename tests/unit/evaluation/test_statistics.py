import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics import (
    best_of_k,
    bootstrap_intervals,
    default_ks,
    oracle,
    paired_difference,
    random_choice,
)
from tests.unit.evaluation.brute_force import best_of


@pytest.mark.parametrize("num_levels", [1, 2, 3, 100])
def test_best_of_k_is_the_mean_over_all_subsets(num_levels):
    generator = np.random.default_rng(num_levels)
    scores = generator.integers(num_levels, size=(20, 7)).astype(float)
    passed = generator.random((20, 7)) < 0.4
    ks = list(range(1, 8))
    expected = [[best_of(s, p, k) for k in ks] for s, p in zip(scores, passed, strict=True)]
    np.testing.assert_allclose(best_of_k(scores, passed, ks), expected, atol=1e-12)


def test_infinite_scores_are_ordered_and_one_candidate_is_itself():
    assert best_of_k([[-np.inf, np.inf, 0.0]], [[0, 1, 0]], [3]) == pytest.approx(1.0)
    assert best_of_k([[5.0]], [[True]], [1]) == pytest.approx(1.0)


def test_all_scores_equal_is_the_random_choice_and_a_perfect_score_the_oracle():
    passed = np.random.default_rng(0).random((30, 9)) < 0.3
    ks = [1, 2, 4, 9]
    np.testing.assert_allclose(
        best_of_k(np.zeros((30, 9)), passed, ks), random_choice(passed, ks), atol=1e-12
    )
    np.testing.assert_allclose(best_of_k(passed, passed, ks), oracle(passed, ks), atol=1e-12)


def test_large_pools_stay_exact():
    passed = np.zeros((1, 256), bool)
    passed[0, 0] = True
    ks = [1, 128, 256]
    np.testing.assert_allclose(oracle(passed, ks), [[1 / 256, 0.5, 1.0]], rtol=1e-12)


@pytest.mark.parametrize(
    ("scores", "passed", "ks", "words"),
    [
        ([[1.0, float("nan")]], [[0, 1]], [1], "candidate 1 of problem 0"),
        ([[1.0, 2.0]], [[0, 1, 1]], [1], r"\(1, 2\) and \(1, 3\)"),
        ([1.0, 2.0], [0, 1], [1], "problems, candidates"),
        ([[1.0, 2.0]], [[0, 1]], [3], r"k=3 is outside 1\.\.2"),
        (np.zeros((0, 4)), np.zeros((0, 4)), [1], "one shape"),
    ],
)
def test_bad_pools_are_refused(scores, passed, ks, words):
    with pytest.raises(InputError, match=words):
        best_of_k(scores, passed, ks)


def test_ks_are_powers_of_two_and_the_pool():
    assert default_ks(1) == [1]
    assert default_ks(8) == [1, 2, 4, 8]
    assert default_ks(20) == [1, 2, 4, 8, 16, 20]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        sample = (generator.random((60, 1)) < 0.4).astype(float)
        (interval,) = bootstrap_intervals(sample, 0.9, 400, seed)
        covered += interval.low <= 0.4 <= interval.high
    assert 0.82 <= covered / 200 <= 0.97


def test_interval_of_one_problem_says_that_nothing_is_known():
    (interval,) = bootstrap_intervals(np.array([[1.0]]), 0.95, 100)
    assert (interval.low, interval.high) == (0.0, 1.0)
    single = paired_difference(np.array([1.0]), np.array([0.0]), 0.95, 100)
    assert single.low < 0 < single.high


def test_paired_difference_sees_what_is_there_and_no_more():
    generator = np.random.default_rng(1)
    base = generator.random(50)
    better = paired_difference(base + 0.1, base, 0.95, 500)
    assert better.low > 0 and better.mean == pytest.approx(0.1) and better.p_value < 0.01
    same = paired_difference(base, base, 0.95, 500)
    assert (same.mean, same.p_value) == (0, 1.0) and same.low < 0 < same.high
    worse = paired_difference(base - 0.1, base, 0.95, 500)
    assert worse.high < 0
    noise = paired_difference(base, generator.permutation(base), 0.95, 500)
    assert noise.low < 0 < noise.high and noise.p_value > 0.05


def test_problems_that_all_agree_still_leave_room_for_others():
    """24 of 24 wrong: Clopper-Pearson's upper 95 % limit is 14.2 %; the same for differences."""
    (none,) = bootstrap_intervals(np.zeros((24, 1)), 0.95, 100)
    assert (none.low, none.high) == pytest.approx((0.0, 0.1425), abs=1e-4)
    (all_right,) = bootstrap_intervals(np.ones((24, 1)), 0.95, 100)
    assert (all_right.low, all_right.high) == pytest.approx((0.8575, 1.0), abs=1e-4)
    same = paired_difference(np.zeros(24), np.zeros(24), 0.95, 100)
    assert (same.low, same.high) == pytest.approx((-0.1425, 0.1425), abs=1e-4)
