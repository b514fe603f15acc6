import json

import numpy as np
import pytest

from benchmarks.evaluation_statistics import made_up_pool
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_report import MAIN, PoolArrays, Settings, measure_pools
from codepmp_ray.evaluation.statistics import (
    best_of_k,
    bootstrap_intervals,
    default_ks,
    majority,
    oracle,
    paired_difference,
    random_choice,
    vote_weights,
    weighted_majority,
)
from tests.unit.evaluation.brute_force import best_of, vote


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


FEW = Settings(num_bootstrap=400, num_draws=20)


def test_a_made_up_pool_is_measured_as_it_was_made():
    found = measure_pools(made_up_pool(60, 16), settings=FEW)
    json.dumps(found, allow_nan=False)
    assert found["k"] == [1, 2, 4, 8, 16]
    last = {name: curve["accuracy"][-1] for name, curve in found["series"].items()}
    assert last["oracle"] >= last[MAIN] > last["second"] - 0.05 > last["random"]
    # Length and generator know nothing in a pool that was drawn without them.
    assert abs(last["length"] - last["random"]) < 0.2
    for curve in found["series"].values():
        assert all(np.less_equal(curve["low"], curve["high"]))
        assert curve["accuracy"][0] == pytest.approx(last["random"], abs=0.05)
    random = next(c for c in found["comparisons"] if (c["left"], c["right"]) == (MAIN, "random"))
    assert random["low"] > 0
    assert random["holm_p_value"] >= random["test_p_value"]
    assert found["note"].startswith("Of 9 comparisons")


def test_without_scores_there_are_baselines_and_no_comparison():
    found = measure_pools(PoolArrays(passed=[[1, 0], [0, 0]]), settings=FEW)
    assert set(found["series"]) == {"random", "oracle"}
    assert found["comparisons"] == [] and found["note"] == ""


def test_one_candidate_equal_scores_and_nan_have_defined_values():
    one = measure_pools(PoolArrays([[1], [0]], {MAIN: [[3.0], [3.0]]}), settings=FEW)
    assert one["series"][MAIN]["accuracy"] == [0.5]
    nan = float("nan")
    pools = PoolArrays([[1, 0], [1, 0]], {MAIN: [[nan, nan], [1.0, 1.0]]}, groups=[[0, 1], [0, 1]])
    with pytest.raises(InputError, match="not a number"):
        measure_pools(pools, settings=FEW)
    lenient = Settings(num_bootstrap=400, num_draws=20, nan_scores="last")
    found = measure_pools(pools, settings=lenient)
    assert found["num_nan_scores"] == 2
    assert found["series"][MAIN]["accuracy"] == [0.5, 0.5]
    assert found["series"]["weighted_majority"]["accuracy"] == [0.5, 0.5]


def test_short_and_empty_pools_are_counted():
    pools = PoolArrays([[1, 1], [1, 0]], present=[[True, False], [False, False]])
    found = measure_pools(pools, settings=FEW)
    assert (found["num_short_pools"], found["num_empty_pools"]) == (2, 1)
    assert found["series"]["oracle"]["accuracy"] == [0.5, 0.5]


def _table(function, rows, ks):
    return np.array([[function(*row, k) for k in ks] for row in rows])


@pytest.mark.parametrize("num_groups", [1, 2, 3, 5, 8])
def test_majority_is_the_mean_over_all_subsets(num_groups):
    generator = np.random.default_rng(num_groups)
    groups = generator.integers(num_groups, size=(15, 8))
    passed = generator.random((15, 8)) < 0.5  # members of a group differ, too
    ks = list(range(1, 9))
    rows = [(g, np.ones(8), p) for g, p in zip(groups, passed, strict=True)]
    found, error = majority(groups, passed, ks)
    np.testing.assert_allclose(found, _table(vote, rows, ks), atol=1e-12)
    assert (error == 0).all()


def test_majority_of_a_large_pool_agrees_with_sampling():
    generator = np.random.default_rng(0)
    groups = np.minimum(generator.zipf(1.5, size=(6, 200)), 40)
    passed = groups == 2
    ks = [1, 2, 16, 200]
    exact, none = majority(groups, passed, ks)
    sampled, error = majority(groups, passed, ks, num_draws=3_000, max_products=0)
    assert (none == 0).all() and (error[1:-1] > 0).all()
    assert (np.abs(exact.mean(axis=0) - sampled.mean(axis=0)) <= 4.5 * error + 1e-12).all()
    np.testing.assert_allclose(exact[:, 0], passed.mean(axis=1))  # one vote is a random choice


def test_two_groups_have_a_closed_form():
    """5 right and 3 wrong of 8, three drawn: right wins with 2 or 3, C(5,2)*3 + C(5,3) of 56."""
    found, _ = majority([[0] * 5 + [1] * 3], [[1] * 5 + [0] * 3], [2, 3, 8])
    assert found[0] == pytest.approx([(10 + 15 / 2) / 28, 40 / 56, 1.0])


@pytest.mark.parametrize("zero_weights", [False, True])
def test_weighted_votes_agree_with_all_subsets_within_their_error(zero_weights):
    generator = np.random.default_rng(3)
    groups = generator.integers(3, size=(12, 7))
    passed = generator.random((12, 7)) < 0.5
    weights = generator.random((12, 7))
    if zero_weights:
        weights[:, ::2] = 0
    ks = [1, 2, 4, 7]
    rows = list(zip(groups, weights, passed, strict=True))
    expected = _table(vote, rows, ks)
    found, error = weighted_majority(groups, weights, passed, ks, num_draws=4_000)
    assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) <= 4.5 * error + 1e-12).all()
    assert np.abs(found - expected).max() < 0.05
    assert error[0] == error[-1] == 0 and error[1] > 0


def test_groups_alike_in_outcome_take_the_short_way_to_the_same_figure():
    generator = np.random.default_rng(4)
    groups = generator.integers(4, size=(8, 7))
    passed, weights = groups < 2, 0.1 + generator.random((8, 7))
    rows = list(zip(groups, weights, passed, strict=True))
    found, _ = weighted_majority(groups, weights, passed, [3, 7], num_draws=5_000)
    np.testing.assert_allclose(found, _table(vote, rows, [3, 7]), atol=0.04)
    np.testing.assert_allclose(found[:, 1], _table(vote, rows, [7])[:, 0], atol=1e-12)


def test_one_dominant_weight_decides_alone():
    weights = [[1.0, 1e-6, 1e-6, 1e-6]]
    found, _ = weighted_majority([[0, 1, 1, 1]], weights, [[1, 0, 0, 0]], [4])
    best = best_of_k(weights, [[1, 0, 0, 0]], [4])
    assert found[0, 0] == best[0, 0] == 1.0


def test_weights_grow_with_the_score_and_bad_ones_are_refused():
    weights = vote_weights([-800.0, 0.0, 800.0])
    assert weights.tolist() == [0.0, 0.5, 1.0]
    for bad in ([[1.0, -0.1]], [[np.nan, 1.0]]):
        with pytest.raises(InputError, match="finite and not negative"):
            weighted_majority([[0, 1]], bad, [[0, 1]], [1])


def test_equal_sums_share_although_they_were_added_in_different_orders():
    weights = [[0.1, 0.2, 0.3, 0.3, 0.2, 0.1]]
    groups, passed = [[0, 0, 0, 1, 1, 1]], [[1, 1, 1, 0, 0, 0]]
    found = [weighted_majority(groups, weights, passed, [6], seed=seed)[0] for seed in range(5)]
    np.testing.assert_allclose(np.ravel(found), 0.5, atol=1e-12)


def test_a_pool_without_candidates_counts_as_nothing_solved() -> None:
    groups, passed = [[0, 0, 1], [0, 1, 1]], [[1, 1, 0], [1, 1, 1]]
    present = [[True, True, True], [False, False, False]]
    found, error = majority(groups, passed, [1, 3], present=present)
    assert found[1].tolist() == [0.0, 0.0] and found[0, 1] == 1.0 and not error.any()
    weights = [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    found, _ = weighted_majority(groups, weights, passed, [3], present=present)
    assert found.tolist() == [[1.0], [0.0]]
