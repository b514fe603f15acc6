"""Tests that a model wrote: `check(candidate)` in a code block."""

from __future__ import annotations

import ast
from copy import copy

from codepmp_ray.synthesis.answers import find_code
from codepmp_ray.synthesis.python_syntax import parse_python

TEST_FUNCTION = "check"


def tests_problem(text: str) -> str | None:
    """Why a model's answer to the tests prompt holds no tests, or None."""
    code = find_code(text, "python")
    tree = parse_python(code.text) if code else None
    if tree is None:
        return "no valid Python code block"
    check = _check_of(tree)
    if check is None:
        return f"no function {TEST_FUNCTION}(candidate)"
    return None if _asserts(check) else f"{TEST_FUNCTION} asserts nothing"


def single_tests(text: str, at_most: int) -> list[str]:
    """The first tests of such an answer, each as a program whose `check(candidate)` has only it.

    A test is a statement of `check` that asserts something, alone or in a block; what stands before
    it without asserting is done first. Empty where the tests are nested too deeply to be written.
    """
    code = find_code(text, "python")
    tree = parse_python(code.text) if code else None
    check = _check_of(tree) if tree else None
    if tree is None or check is None:
        return []
    made: list[str] = []
    before: list[ast.stmt] = []
    for statement in check.body:
        if not _asserts(statement):
            before.append(statement)
        elif len(made) < at_most:
            alone = copy(check)
            alone.body = [*before, statement]
            body = [alone if node is check else node for node in tree.body]
            try:
                made.append(ast.unparse(ast.Module(body, [])))
            except RecursionError:  # what the parser builds, the writer may not be able to walk
                return []
    return made


def _check_of(tree: ast.Module) -> ast.FunctionDef | None:
    """The `check` that counts: the last one."""
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == TEST_FUNCTION and node.args.args
    ]
    return found[-1] if found else None


def _asserts(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
