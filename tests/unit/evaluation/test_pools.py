"""Pools of unequal size, scores that are no numbers, and picks that know who wrote what."""

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pools import answer_groups
from codepmp_ray.evaluation.statistics import (
    best_of_k,
    expected_best_score,
    majority,
    model_prior_scores,
    one_draw_sd,
    oracle,
    padded,
    random_choice,
    weighted_majority,
)
from tests.unit.evaluation import brute_force

SIZES = [6, 4, 1, 0, 6]


@pytest.fixture
def ragged():
    generator = np.random.default_rng(0)
    scores = [generator.integers(4, size=n).astype(float).tolist() for n in SIZES]
    passed = [(generator.random(n) < 0.5).astype(float).tolist() for n in SIZES]
    return scores, passed


def test_short_pools_are_judged_by_all_they_have_and_empty_ones_are_not_solved(ragged):
    scores, passed = ragged
    values, present = padded(scores, fill=99.0)
    correct, _ = padded(passed, fill=1.0)
    ks = [1, 2, 4, 6]
    expected = {"best": [], "oracle": [], "majority": []}
    for row, right in zip(scores, passed, strict=True):
        cut = [min(k, len(row)) for k in ks]
        ones = np.ones(len(row))
        expected["best"].append([brute_force.best_of(row, right, k) if row else 0 for k in cut])
        expected["oracle"].append([brute_force.any_right(right, k) if row else 0 for k in cut])
        expected["majority"].append(
            [brute_force.vote(row, ones, right, k) if row else 0 for k in cut]
        )
    np.testing.assert_allclose(best_of_k(values, correct, ks, present), expected["best"])
    np.testing.assert_allclose(oracle(correct, ks, present), expected["oracle"])
    votes, _ = majority(values, correct, ks, present=present)
    np.testing.assert_allclose(votes, expected["majority"])
    weighted, _ = weighted_majority(values, np.ones_like(values), correct, [6], present=present)
    np.testing.assert_allclose(weighted[:, 0], np.array(expected["majority"])[:, -1])
    means = [np.mean(right) if right else 0.0 for right in passed]
    np.testing.assert_allclose(random_choice(correct, [4], present)[:, 0], means)


def test_a_score_that_is_no_number_is_refused_or_comes_last():
    nan, inf = float("nan"), float("inf")
    scores, passed = [[nan, -inf, nan, 2.0]], [[1, 0, 1, 0]]
    with pytest.raises(InputError, match="candidate 0 of problem 0"):
        best_of_k(scores, passed, [1])
    found = best_of_k(scores, passed, [1, 2, 3], nan_scores="last")
    # Of six pairs only the two NaN together give a right one; -inf and 2.0 beat NaN.
    assert found[0] == pytest.approx([0.5, 1 / 6, 0.0])
    hidden = best_of_k(scores, passed, [2], present=[[False, True, False, True]])
    assert hidden[0, 0] == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: padded([[], []]), "None of 2 problems has a candidate"),
        (lambda: oracle([[1, float("nan")]], [1]), "Candidate 1 of problem 0 passed nan"),
        (lambda: oracle([[0, 2]], [1]), "not between 0 and 1"),
        (lambda: oracle([[0, 1]], [1], present=[[True]]), r"present is \(1, 1\)"),
        (lambda: model_prior_scores([["a"]], [[0, 1]]), r"models is \(1, 1\)"),
        (lambda: expected_best_score([[1.0, float("inf")]], [1]), "finite scores"),
    ],
)
def test_damaged_pools_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_the_expected_best_score_is_the_mean_over_all_subsets():
    scores = np.random.default_rng(1).normal(size=(5, 6))
    ks = [1, 2, 5, 6]
    expected = [[brute_force.best_score(row, k) for k in ks] for row in scores]
    np.testing.assert_allclose(expected_best_score(scores, ks), expected)


def test_a_generator_is_judged_by_the_other_problems_only():
    models = [["a", "b"], ["a", "b"], ["b", "c"]]
    passed = [[1, 0], [1, 0], [1, 0]]
    found = model_prior_scores(models, passed)
    # For problem 0: a is right in 1 of 1 others, b in 1 of 2. c wrote for problem 2 only.
    np.testing.assert_allclose(found, [[1.0, 0.5], [1.0, 0.5], [0.0, 0.5]])


def test_a_model_prior_cannot_look_at_the_answer():
    """Every generator is right by chance: a prior that saw this problem would beat chance."""
    generator = np.random.default_rng(2)
    passed = generator.random((400, 4)) < 0.5
    models = np.tile(np.arange(4), (400, 1))
    picked = best_of_k(model_prior_scores(models, passed), passed, [4]).mean()
    assert abs(picked - 0.5) < 0.08


def test_one_draw_wanders_as_far_as_its_formula_says():
    generator = np.random.default_rng(3)
    scores, passed = generator.normal(size=(40, 12)), generator.random((40, 12)) < 0.4
    ks = [1, 4, 12]
    expected = best_of_k(scores, passed, ks)
    curves = np.empty((400, len(ks)))
    rows = np.arange(40)
    for repeat in range(400):
        for column, k in enumerate(ks):
            drawn = np.argsort(generator.random((40, 12)), axis=1)[:, :k]
            best = np.take_along_axis(scores, drawn, axis=1).argmax(axis=1)
            curves[repeat, column] = passed[rows, drawn[rows, best]].mean()
    spread = one_draw_sd(expected)
    np.testing.assert_allclose(curves.mean(axis=0), expected.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(curves.std(axis=0), spread, rtol=0.12, atol=1e-9)
    assert spread[-1] == pytest.approx(0.0)  # of the whole pool there is one draw


@pytest.mark.parametrize(
    "same",
    [
        [
            "0.5",
            "1/2",
            "2/4",
            ".5",
            "0.50",
            "\\frac{1}{2}",
            "\\dfrac{1}{2}",
            " 1/2 ",
            "$1/2$",
            "1 / 2",
        ],
        ["10000", "10,000", "10{,}000", "10 000", "10\u2009000", "10000.0", "10000."],
        ["-3", "\u22123", "\u20133", "-3.0", "-6/2"],
        ["120", "120.000000000000"],
        ["499.99999999999994", "500"],
        ["x + 1", " x + 1"],
    ],
)
def test_what_is_equal_is_one_vote(same: list[str]) -> None:
    assert set(answer_groups(same)) == {0}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5", "0.51"), ("12", "1 2"), ("3", "-3"), ("1/0", "0"), ("x", "y"), ("1,2", "12"),
        ("2\\sqrt{3}", "2"), ("6\\sqrt{2}", "6"), ("(1, 2)", "1"), ("5:30", "1/6"),
        ("9" * 400, "9"),
    ],
)  # fmt: skip
def test_what_is_not_is_none(one: str, other: str) -> None:
    assert answer_groups([one, other]) == [0, 1]


def test_no_answer_agrees_with_nobody() -> None:
    assert answer_groups([None, "1", None, "1.0"]) == [0, 1, 2, 1]
