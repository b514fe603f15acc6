"""Votes: equal numbers are one answer however they are written, and nothing else is."""

from __future__ import annotations

import pytest

from codepmp_ray.evaluation.pools import answer_groups


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
