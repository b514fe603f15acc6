"""Tests that a model wrote: `check(candidate)` in a code block."""

from __future__ import annotations

import ast

from codepmp_ray.synthesis.answers import find_code
from codepmp_ray.synthesis.python_syntax import parse_python

TEST_FUNCTION = "check"


def tests_problem(text: str) -> str | None:
    """Why a model's answer to the tests prompt holds no tests, or None."""
    code = find_code(text, "python")
    tree = parse_python(code.text) if code else None
    if tree is None:
        return "no valid Python code block"
    checks = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == TEST_FUNCTION and node.args.args
    ]
    if not checks:
        return f"no function {TEST_FUNCTION}(candidate)"
    if not any(isinstance(node, ast.Assert) for node in ast.walk(checks[-1])):
        return f"{TEST_FUNCTION} asserts nothing"
    return None
