"""ProcessBench rows (its schema, contents of our own): predictions, F1 and what is refused."""

import json
import re

import pytest

from codepmp_ray.client import CandidateScore
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap
from codepmp_ray.evaluation.pairwise.process_bench import (
    process_figures,
    read_solutions,
    request_of,
)

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
