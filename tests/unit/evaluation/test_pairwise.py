"""Accuracy on pairs, with intervals over prompts."""

import json
import re

import numpy as np
import pytest

from codepmp_ray.client import CandidateScore
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import (
    Bootstrap,
    Outcomes,
    accuracy_by_section,
    pair_accuracy,
    weighted_accuracy,
)
from codepmp_ray.evaluation.pairwise.process_bench import (
    process_figures,
    read_solutions,
    request_of,
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


BOOTSTRAP = Bootstrap(num_bootstrap=200)


def row(name, label, num_steps=3, **change):
    steps = [f"step {i} of {name}" for i in range(num_steps)]
    return {"id": name, "problem": f"p{name}", "steps": steps, "label": label} | change


ROWS = [
    *(row(f"gsm8k-{i}", label) for i, label in enumerate([-1, -1, 0, 1, 2])),
    *(row(f"math-{i}", label) for i, label in enumerate([-1, -1, -1, -1, 1, 1, 2])),
]


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def scored(solutions, reward):
    found = []
    for solution in solutions:
        request = request_of(solution)
        scores = [CandidateScore(reward(solution, i), 1, False) for i in range(len(request.texts))]
        found += request.rows(scores)
    return found


def test_each_beginning_of_a_solution_is_scored(tmp_path):
    (solution,) = read_solutions(written(tmp_path, row("math-7", 1)))
    request = request_of(solution)
    assert request.prompt == "pmath-7"
    assert request.texts[0] == "step 0 of math-7" and request.texts[2].count("\n\n") == 2


def test_f1_is_the_harmonic_mean_of_two_accuracies(tmp_path):
    solutions = read_solutions(written(tmp_path, *ROWS))
    mistaken = {"math-0": -1.0, "math-4": 1.0}  # a right one held to be wrong, a wrong step missed

    def reward(solution, step):
        wrong = solution.label >= 0 and step >= solution.label
        return mistaken.get(solution.solution_id, -1.0 if wrong else 1.0)

    made = process_figures(solutions, scored(solutions, reward), BOOTSTRAP)
    assert made["parts"]["gsm8k"]["mean"] == 1.0 and made["parts"]["gsm8k"]["low"] < 1.0
    math = made["parts"]["math"]
    assert (math["with_wrong_step"], math["without"]) == (pytest.approx(2 / 3), 0.75)
    assert math["mean"] == pytest.approx(2 * (2 / 3) * 0.75 / (2 / 3 + 0.75))
    assert math["low"] < math["mean"] < math["high"]
    assert made["sections"]["Total"]["mean"] == pytest.approx((1 + math["mean"]) / 2)
    assert made["missing"] == ["olympiadbench", "omnimath"]
    assert -1.0 < made["threshold"] <= 1.0


def test_the_very_step_counts_and_one_verdict_for_all_is_worth_nothing(tmp_path):
    solutions = read_solutions(written(tmp_path, *ROWS))

    def figures(reward):
        return process_figures(solutions, scored(solutions, reward), BOOTSTRAP)["parts"]

    assert figures(lambda solution, step: 0.0)["math"]["mean"] == 0.0
    # The step after the wrong one: never right of solutions with a wrong step.
    late = figures(lambda solution, step: -float(0 <= solution.label < step))
    assert late["gsm8k"]["with_wrong_step"] == 0.0 and late["math"]["mean"] == 0.0


def test_the_threshold_is_found_on_gsm8k_alone(tmp_path):
    solutions = read_solutions(written(tmp_path, *ROWS))

    def reward(solution, step):
        wrong = solution.label >= 0 and step >= solution.label
        shift = 10.0 if solution.part == "math" else 0.0  # no step of math is below it
        return shift + (-1.0 if wrong else 1.0)

    made = process_figures(solutions, scored(solutions, reward), BOOTSTRAP)
    assert made["parts"]["gsm8k"]["mean"] == 1.0 and made["parts"]["math"]["mean"] == 0.0
    assert made["parts"]["math"]["without"] == 1.0


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row("aime-1", 0), "begins with none of gsm8k"),
        (row("math-9", 3), "label is 3, and it has 3 steps"),
        (row("math-9", True), "label is True"),
        (row("math-9", 0, steps=[]), "steps no list of texts"),
        (row("math-9", 0, steps=["a", ""]), "steps no list of texts"),
        (row("math-9", None), "no label"),
        (ROWS[0], "a second row"),
    ],
)
def test_rows_that_are_no_solutions_are_refused(tmp_path, bad, says):
    with pytest.raises(InputError, match=rf"Row {len(ROWS) + 1} .*{says}"):
        read_solutions(written(tmp_path, *ROWS, bad))


@pytest.mark.parametrize("kept", ["math", "gsm8k-[01]"])
def test_parts_need_both_kinds_and_gsm8k_is_needed(tmp_path, kept):
    rows = [one for one in ROWS if re.match(kept, one["id"])]
    solutions = read_solutions(written(tmp_path, *rows))
    with pytest.raises(InputError, match="part gsm8k needs solutions with and without"):
        process_figures(solutions, scored(solutions, lambda s, i: 0.0), BOOTSTRAP)
