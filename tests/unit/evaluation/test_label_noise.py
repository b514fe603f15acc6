"""Label noise against a count over every pair of samples."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.label_noise import label_noise, pass_rates
from codepmp_ray.evaluation.statistics import bootstrap_ratio


def _grades(passed: dict[str, list[bool | None]]) -> list[dict]:
    return [
        {"candidate_id": f"{name}-{i}", "problem_id": name, "passed": value, "outcome": str(value)}
        for name, values in passed.items()
        for i, value in enumerate(values)
    ]


STRONG = {"a": [True, True, False], "b": [True, False, False], "c": [False] * 3, "d": [True] * 3}
WEAK = {"a": [True, False], "b": [False, False], "c": [True, False], "d": [True, True]}


def test_shares_are_those_of_all_pairs_of_samples() -> None:
    names, strong, weak = pass_rates(_grades(STRONG), _grades(WEAK))
    assert names == ["a", "b", "c", "d"]
    counts = dict.fromkeys(product((True, False), repeat=2), 0.0)
    for name in names:
        pairs = list(product(STRONG[name], WEAK[name]))
        for pair in pairs:
            counts[pair] += 1 / len(pairs) / len(names)
    result = label_noise(strong, weak, 0.95, 200)
    assert result.num_problems == 4
    assert result.right.mean == pytest.approx(counts[True, False])
    assert result.wrong.mean == pytest.approx(counts[False, True])
    assert result.both_pass.mean == pytest.approx(counts[True, True])
    assert result.both_fail.mean == pytest.approx(counts[False, False])
    assert result.noise is not None
    assert result.noise.mean == pytest.approx(
        counts[False, True] / (counts[False, True] + counts[True, False])
    )
    assert 0 <= result.noise.low <= result.noise.mean <= result.noise.high <= 1


def test_only_common_problems_count() -> None:
    names, strong, weak = pass_rates(
        _grades({"a": [True], "x": [False]}), _grades({"a": [False], "y": [True]})
    )
    assert (names, strong.tolist(), weak.tolist()) == (["a"], [1.0], [0.0])


def test_no_common_problem_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 and the weak model's 2 .* none in common"):
        pass_rates(_grades({"a": [True]}), _grades({"b": [True], "c": [True]}))


def test_answers_that_could_not_be_judged_are_left_out() -> None:
    rows = _grades({"a": [True, None], "b": [None], "c": [False, False]})
    rows[-1]["outcome"] = "missing_package"
    names, strong, _ = pass_rates(rows, _grades(WEAK))
    assert (names, strong.tolist()) == (["a", "c"], [1.0, 0.0])


def test_models_that_never_differ_have_no_noise_figure() -> None:
    assert label_noise(np.array([1.0, 0.0]), np.array([1.0, 0.0]), 0.95, 200).noise is None


def test_an_interval_is_not_a_point_because_nothing_went_wrong_yet() -> None:
    result = label_noise(np.ones(12), np.zeros(12), 0.95, 200)
    assert result.noise is not None
    assert result.noise.mean == 0 and 0.2 < result.noise.high < 0.3  # rule of three, 12 problems


def test_the_interval_of_a_ratio_covers_its_true_value() -> None:
    """150 experiments of 80 problems, each with an order in half of them, wrong in a fifth."""
    generator = np.random.default_rng(5)
    hits = 0
    for seed in range(150):
        ordered = (generator.random(80) < 0.5).astype(float)
        wrong = ordered * (generator.random(80) < 0.2)
        interval = bootstrap_ratio(wrong, ordered, 0.95, 400, seed)
        hits += interval.low <= 0.2 <= interval.high
    assert hits / 150 > 0.87  # nominally 0.95; four standard errors of 150 draws below 0.94
