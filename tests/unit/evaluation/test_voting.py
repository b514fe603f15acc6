"""Majority and weighted votes against all subsets."""

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics import best_of_k, majority, vote_weights, weighted_majority
from tests.unit.evaluation.brute_force import vote


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
