"""Python's parser and writer on hostile text: a tree or None, never an error, never a warning."""

import ast
import warnings

import pytest

from codepmp_ray.synthesis.constructions.execution_feedback import signature
from codepmp_ray.synthesis.python_syntax import parse_python, unparse_arguments

SUM = "def f(x={}): pass"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "\x00",
        "x = '\ud800'",
        "f" + "[" * 90_000,
        "-" * 90_000 + "1",
        "x =",
        "+1" * 9_999,
    ],
)
def test_what_python_cannot_parse_is_none(text: str) -> None:
    assert parse_python(text) is None


def test_no_warning_reaches_the_log() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_python(r"x = '\d' is 1") is not None


def function(default: str) -> ast.FunctionDef:
    tree = parse_python(SUM.format(default))
    assert tree is not None and isinstance(tree.body[0], ast.FunctionDef)
    return tree.body[0]


def test_arguments_that_are_too_deep_to_write_are_none() -> None:
    assert unparse_arguments(function("1 + 1")) == "x=1 + 1"
    assert unparse_arguments(function("1" + "+1" * 900)) is None


def test_such_a_function_is_no_plain_function() -> None:
    row = {"language": "python", "kind": "function", "name": "f", "code": SUM.format("1 + 1")}
    assert signature(row) == "def f(x=1 + 1)"
    assert signature({**row, "code": SUM.format("1" + "+1" * 900)}) is None
