"""Accuracy on pairs, with intervals over prompts."""

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import (
    Bootstrap,
    Outcomes,
    accuracy_by_section,
    pair_accuracy,
    weighted_accuracy,
)

FEW = Bootstrap(num_bootstrap=600)


def test_right_wrong_and_tied_pairs():
    outcomes = Outcomes.of([1.0, 0.0, 2.0, 5.0], [0.0, 1.0, 2.0, 4.0])
    found = pair_accuracy(outcomes, FEW)
    assert found.mean == (1 + 0 + 0.5 + 1) / 4
    assert (found.num_pairs, found.num_prompts, found.num_ties) == (4, 4, 1)
    strict = pair_accuracy(Outcomes.of([2.0, 1.0], [2.0, 0.0], tie=0.0), FEW)
    assert strict.mean == 0.5 and strict.num_ties == 1


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompts", "words"),
    [
        ([], [], None, "one reward of each side"),
        ([1.0], [1.0, 2.0], None, "one reward of each side"),
        ([1.0], [2.0], ["a", "b"], "one prompt for each pair"),
        ([1.0, float("nan")], [2.0, 1.0], None, "1 of 2 pairs .* the first is pair 1"),
    ],
)
def test_damaged_rewards_are_refused(chosen, rejected, prompts, words):
    with pytest.raises(InputError, match=words):
        Outcomes.of(chosen, rejected, prompts)


def test_pairs_of_one_prompt_are_drawn_together():
    """Eight copies of every pair: the interval must be that of the prompts, not of the pairs."""
    right = (np.random.default_rng(0).random(40) < 0.7).astype(float)
    prompts = [f"p{i}" for i in range(40)]
    once = pair_accuracy(Outcomes.of(right, 0.5 * np.ones(40), prompts), FEW)
    copied = pair_accuracy(
        Outcomes.of(np.repeat(right, 8), 0.5 * np.ones(320), np.repeat(prompts, 8)), FEW
    )
    assert (copied.num_pairs, copied.num_prompts) == (320, 40)
    assert (copied.mean, copied.low, copied.high) == pytest.approx((once.mean, once.low, once.high))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(150):
        rate = generator.beta(7, 3, size=40)  # of prompts, whose pairs go right or wrong together
        right = (generator.random((40, 5)) < rate[:, None]).ravel()
        outcomes = Outcomes.of(right, np.full(200, 0.5), np.repeat(range(40), 5).astype(str))
        found = pair_accuracy(outcomes, Bootstrap(0.9, 300, seed))
        covered += found.low <= 0.7 <= found.high
    assert 0.82 <= covered / 150 <= 0.96


def test_no_mistake_yet_is_no_certainty():
    found = pair_accuracy(Outcomes.of(np.ones(24), np.zeros(24)), FEW)
    assert (found.low, found.high) == pytest.approx((0.8575, 1.0), abs=1e-4)
    assert pair_accuracy(Outcomes.of([1.0], [0.0]), FEW).low == 0.0
    # Each section by its own number of prompts, a mean by its smallest.
    mixed = Outcomes.of(np.ones(30), np.zeros(30))
    names = ["a"] * 24 + ["b"] * 6
    found = accuracy_by_section(mixed, names, FEW)
    assert (found["a"].low, found["b"].low) == pytest.approx((0.8575, 0.5407), abs=1e-4)
    both = weighted_accuracy(mixed, names, {"both": {"a": 1, "b": 1}, "a": {"a": 1}}, FEW)
    assert (both["both"].low, both["a"].low) == pytest.approx((0.5407, 0.8575), abs=1e-4)


def test_sections_keep_their_own_pairs_and_order():
    outcomes = Outcomes.of([1, 1, 0, 0, 1], [0, 0, 1, 1, 0])
    found = accuracy_by_section(outcomes, ["b", "b", "a", "a", "a"], FEW)
    assert list(found) == ["b", "a"]
    assert (found["b"].mean, found["a"].mean) == pytest.approx((1.0, 1 / 3))
    with pytest.raises(InputError, match="4 sections were given for 5 pairs"):
        accuracy_by_section(outcomes, ["a"] * 4, FEW)


def test_weights_are_of_subsets_not_of_pairs():
    outcomes = Outcomes.of([1] * 9 + [0], [0] * 9 + [1])
    found = weighted_accuracy(
        outcomes,
        ["many"] * 9 + ["one"],
        {"even": {"many": 1, "one": 1, "absent": 9}, "none": {"absent": 1}},
        FEW,
    )
    assert list(found) == ["even"] and found["even"].mean == 0.5
