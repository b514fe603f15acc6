"""Pass rate: single tests out of a model's answer, and what their outcomes make of a pair."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.engines import EnginesConfig
from codepmp_ray.config.synthesis import PassRateConfig, SynthesisConfig
from codepmp_ray.synthesis.execution import judge_rates
from codepmp_ray.synthesis.model_tests import single_tests
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.plan import plan_pools

CONFIG = SynthesisConfig(construction="pass_rate")
TESTS = """\
```python
import math

def check(candidate):
    old = [0]

def check(candidate):
    one = candidate(1)
    assert one == 1
    for i in range(3):
        assert candidate(i) == old(i)
    two = candidate(2)
    with math.inf:
        if two:
            assert two == 2, "two"

def old(i):
    assert i
    return i
```"""


def test_each_statement_that_asserts_becomes_a_program_with_what_stands_before_it() -> None:
    def run(program: str, candidate: Any) -> str:
        names: dict[str, Any] = {}
        exec(program, names)
        try:
            names["check"](candidate)
        except (AssertionError, TypeError) as error:
            return type(error).__name__
        return "passed"

    first, second, third = single_tests(TESTS, 5)
    assert run(first, int) == "passed" and run(first, lambda x: 7) == "AssertionError"
    assert run(second, int) == "AssertionError"  # old(0) asserts
    assert run(third, int) == "TypeError"  # math.inf is no context; no test before it is executed
    assert len(single_tests(TESTS, 2)) == 2
    assert single_tests("no code", 5) == single_tests("```python\nx = 1\n```", 5) == []


def rows() -> dict[str, Any]:
    sides = {"chosen": "```python\nf = 1\n```", "rejected": "```python\nff = 2\n```"}
    made: dict[str, Any] = dict.fromkeys(
        ("snippet_id", "source_id", "blob_id", "repo", "path", "license", "description",
         "describe_finish_reason", "description_finish_reason", "chosen_finish_reason",
         "rejected_finish_reason"), "x")  # fmt: skip
    made |= {"name": "f", "kind": "function", "code": "def f(x):\n    return x"}
    numbers = dict.fromkeys(("description_num_tokens", "rejected_num_tokens"), 3)
    return made | sides | numbers | {
        "chosen_num_tokens": 4, "language": "python", "tests": "strong's", "weak_tests": "weak's"
    }  # fmt: skip


def judged(strong: str, weak: str, **settings_: Any) -> dict[str, Any]:
    """Tests of each model, as "<chosen><rejected>" with + where it passes."""

    def suite(text: str) -> list[list[tuple[str, str]]]:
        outcome = {"+": ("passed", ""), "-": ("failed", ""), "m": ("missing_package", "numpy")}
        return [[outcome[one] for one in test] for test in text.split()]

    return judge_rates(rows(), [suite(strong), suite(weak)], PassRateConfig(**settings_))


@pytest.mark.parametrize(
    ("strong", "weak", "margin", "swapped"),
    [
        ("+- +-", "+-", 1.0, False),
        ("++ +-", "++ +-", 0.5, False),
        ("-+ ++ ++ ++", "++", 0.125, True),
        # A model's tests are half of the rate, however many it wrote.
        ("+- +- +- +-", "-+ ++", 0.25, False),
    ],
)
def test_the_difference_of_the_rates_is_the_margin(
    strong: str, weak: str, margin: float, swapped: bool
) -> None:
    row = judged(strong, weak, min_difference=0.125)
    assert "reject_reason" not in row and bool(row.get("swapped")) is swapped
    (pair,) = split_rows([row], CONFIG, EnginesConfig())["pairs"].to_pylist()
    assert pair["margin"] == pytest.approx(margin)
    assert pair["chosen"] == rows()["rejected" if swapped else "chosen"]
    assert pair["strong_model"].endswith("0.5B-Instruct" if swapped else "1.5B-Instruct")
    assert pair["tests"] == "strong's\n\nweak's"


@pytest.mark.parametrize(
    ("strong", "weak", "reason"),
    [
        ("++", "++ ++", "both_pass"),
        ("--", "--", "both_fail"),
        ("+- ++", "-+ ++", "score_gap_too_small"),
        ("+- ++ ++ ++ ++ ++", "++", "score_gap_too_small"),
        ("", "+-", "no_tests"),
        ("+-", "", "no_tests"),
        ("+- ++", "m-", "not_executed"),
    ],
)
def test_what_makes_no_difference_is_refused(strong: str, weak: str, reason: str) -> None:
    assert judged(strong, weak)["reject_reason"] == reason


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(("++", "+-", "-+", "--")), min_size=1, max_size=5),
    st.lists(st.sampled_from(("++", "+-", "-+", "--")), min_size=1, max_size=5),
    st.sampled_from((0.1, 0.2, 1 / 3, 1.0)),
)
def test_a_pair_is_as_far_apart_as_was_asked_and_turned_where_the_sides_are(
    strong: list[str], weak: list[str], least: float
) -> None:
    row = judged(" ".join(strong), " ".join(weak), min_difference=least)
    turned = judged(*(" ".join(test[::-1] for test in suite) for suite in (strong, weak)),
                    min_difference=least)  # fmt: skip
    assert row.get("reject_reason") == turned.get("reject_reason")
    if "reject_reason" not in row:
        assert least - 1e-9 <= row["margin"] <= 1 and row["margin"] == turned["margin"]
        assert bool(row.get("swapped")) is not bool(turned.get("swapped"))


def test_both_models_write_tests_before_they_answer() -> None:
    strong, weak = plan_pools(CONFIG, EnginesConfig())
    assert strong.hops == ("describe", "tests", "chosen")
    assert weak.hops == ("weak_tests", "rejected")
