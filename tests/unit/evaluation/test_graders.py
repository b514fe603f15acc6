"""Final answers: where a text says them, and when two of them are the same."""

from pathlib import Path

import pytest

from codepmp_ray.evaluation.graders import GRADERS, Reference
from codepmp_ray.evaluation.graders.final_answer import braced, last_box
from codepmp_ray.evaluation.graders.numbers import find_number

TABLED = set(GRADERS) - {"reasoning_gym"}  # whose kinds have verifiers: test_reasoning_gym.py
OPTIONS = ("The tram is late.", "B text", "It rains", "None of these")


def cases() -> dict[str, list[tuple[str, str, str]]]:
    """(reference, sign, text) by grader, from answer_cases.txt."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    grader = reference = ""
    path = Path(__file__).with_name("answer_cases.txt")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            _, grader, reference = line.split(" ", 2)
        elif line and not line.startswith("#"):
            found.setdefault(grader, []).append((reference, line[0], line[2:].replace("¶", "\n")))
    return found


def verdict(grader, reference, completion, options=()):
    return GRADERS[grader](Reference(reference, options), completion)


def test_the_table_holds_hundreds_of_right_and_of_wrong_answers():
    table = [case for group in cases().values() for case in group]
    assert set(cases()) == TABLED
    assert len(table) > 500 and len({(ref, text) for ref, _, text in table}) == len(table)
    num_right = sum(sign == "+" for _, sign, _ in table)
    assert 170 < num_right < len(table) - 170


@pytest.mark.slow
@pytest.mark.parametrize("grader", sorted(TABLED))
def test_every_answer_of_the_table_is_judged_as_it_says(grader):
    mistaken = []
    for reference, sign, text in cases()[grader]:
        options = OPTIONS if grader == "choice" else ()
        right = OPTIONS["ABCD".index(reference)] if grader == "choice" else reference
        found = verdict(grader, right, text, options)
        expected = (sign == "+", "no_answer" if sign == "0" else str(found.outcome))
        if (found.passed, str(found.outcome)) != expected:
            mistaken.append(f"{reference} {sign} {text!r}: {found.outcome} {found.answer!r}")
    assert mistaken == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48/2 = <<48/2=24>>24 in May.\n#### 1,500", "1500"),
        ("So \\(\\boxed{\\$1,234.50}\\).", "1234.5"),
        ("The answer is unclear, as \\boxed{} and #### say, but 12 - 5 = 7", "7"),
        ("the range is 3-4", "4"),
        ("The answer is -0", "0"),
        ("The answer is 499.99999999999994", "500"),
        ("The answer is 1/3", "1/3"),
        ("The answer is 3/4", "0.75"),
        ("9 - 5 = 4, but 3 is odd.\nThe answer is not known.", None),
        ("9 - 5 = 4, so the answer is clear: there are no others, only those 4", "4"),
        ("Answer: First, she has 16 eggs. She eats 3.\nSo 13 are left.", "13"),
        ("", None),
    ],
)
def test_the_number_that_a_text_ends_with(text, number):
    assert find_number(text) == number


@pytest.mark.parametrize(
    "texts",
    [
        ["\\boxed{\\frac{1}{2}}", "\\boxed{\\frac12}", "The answer is $\\dfrac{1}{2}$", "0.5"],
        ["\\boxed{x + 1}", "The answer is 1+x"],
        ["\\boxed{\\text{Even}}", "The answer is even."],
    ],
)
def test_equal_latex_votes_together(texts):
    assert len({verdict("latex", "3", text).answer for text in texts}) == 1


def test_a_wrong_answer_is_shown_beside_the_reference():
    found = verdict("number", "18", "The answer is 19")
    assert str(found.outcome) == "failed" and "'19'" in found.detail and "'18'" in found.detail


def test_boxes_are_read_to_their_own_brace():
    assert last_box("a \\boxed{x^{2}} b \\boxed {y_{1}} c") == "y_{1}"
    assert last_box("\\boxed{open") == "open" and last_box("none") is None
    assert braced("{a{b}c}d", 0) == "a{b}c"
