"""Tests of significance, power and several comparisons."""

from itertools import product

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.statistics import (
    compare,
    detectable_difference,
    holm,
    mcnemar,
)
from codepmp_ray.evaluation.statistics.comparison import note, significance


def sign_flip_test(gaps, num_draws=10_000, seed=0):
    ((name, p_value),) = significance(np.asarray(gaps, float)[:, None], num_draws, seed)
    assert name == "sign flip" or not np.any(gaps)
    return p_value


def test_few_units_are_flipped_in_every_way():
    gaps = np.array([0.3, -0.1, 0.25, 0.4, 0.0])
    means = [abs(np.dot(signs, gaps)) for signs in product((-1, 1), repeat=5)]
    expected = np.mean([mean >= abs(gaps.sum()) - 1e-12 for mean in means])
    assert sign_flip_test(gaps) == pytest.approx(expected)
    assert sign_flip_test(np.zeros(4)) == 1.0


def test_random_flips_agree_with_all_flips():
    gaps = np.random.default_rng(0).normal(0.3, 1, size=12)
    exact = sign_flip_test(gaps)
    sampled = sign_flip_test(gaps, num_draws=4_000)  # fewer than all 4,096 ways
    assert sampled == pytest.approx(exact, abs=0.015)


def test_mcnemar_is_the_binomial_test_of_those_that_differ():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert 0 < mcnemar(3_000, 2_000) < 1e-30


def test_the_test_fits_what_was_measured():
    generator = np.random.default_rng(1)
    wins = (generator.random(60) < 0.6).astype(float)
    assert compare(wins, 1 - wins, num_bootstrap=200).test == "mcnemar"
    shares = generator.random(60)
    found = compare(shares + 0.2, shares + 0.1 * generator.normal(size=60), num_bootstrap=2_000)
    assert found.test == "sign flip" and found.test_p_value < 0.001 and found.low > 0


def test_p_values_are_uniform_where_nothing_differs():
    generator = np.random.default_rng(2)
    p = [
        sign_flip_test(generator.random(30) - generator.random(30), num_draws=300, seed=i)
        for i in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09
    assert 0.4 <= np.mean(np.array(p) <= 0.5) <= 0.6


def test_pairs_of_one_prompt_count_as_one():
    """Ten copies of each gap are no new evidence, and the mean stays that of the pairs."""
    gaps = np.random.default_rng(3).normal(0.1, 0.5, size=25)
    single = compare(gaps, np.zeros(25), num_bootstrap=2_000)
    copied = compare(
        np.repeat(gaps, 10), np.zeros(250), num_bootstrap=2_000, clusters=np.repeat(range(25), 10)
    )
    assert copied.num_units == 25
    assert (copied.mean, copied.low, copied.high) == pytest.approx(
        (single.mean, single.low, single.high)
    )
    assert copied.test_p_value == pytest.approx(single.test_p_value)


def test_a_detectable_difference_is_found_four_times_in_five():
    generator = np.random.default_rng(4)
    spread = generator.normal(size=80)
    spread = (spread - spread.mean()) / spread.std(ddof=1)
    difference = detectable_difference(spread)
    assert difference == pytest.approx(2.8016 / np.sqrt(80), rel=1e-4)
    found = [
        abs(gaps.mean()) / (gaps.std(ddof=1) / np.sqrt(80)) > 1.96
        for gaps in generator.normal(difference, 1, size=(2_000, 80))
    ]
    assert 0.77 <= np.mean(found) <= 0.84


def test_without_spread_the_rule_of_three_is_what_can_be_seen():
    assert detectable_difference(np.zeros(24)) == pytest.approx(0.1425, abs=1e-4)
    with pytest.raises(InputError, match="1 units have no spread"):
        detectable_difference([0.3])


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [([1.0], [1.0, 0.0], "one length"), ([], [], "one length"), ([np.nan], [1.0], "Unit 0")],
)
def test_comparisons_that_do_not_fit_are_refused(left, right, words):
    with pytest.raises(InputError, match=words):
        compare(left, right, num_bootstrap=100)


def test_holm_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    assert "Of 4 comparisons 4" in note(p) and "(Holm) 2 do" in note(p)
    with pytest.raises(InputError, match="between 0 and 1"):
        holm([0.5, 1.2])
