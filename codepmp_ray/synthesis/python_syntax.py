"""Python's own parser on text that nobody vouches for."""

from __future__ import annotations

import ast
import warnings


def parse_python(code: str) -> ast.Module | None:
    """Syntax tree, or None where there is none: too deep, NUL bytes and half surrogates too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in generated strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def unparse_arguments(function: ast.FunctionDef) -> str | None:
    """The text between the parentheses of `def`, or None when it is nested too deeply to write."""
    try:
        return ast.unparse(function.args)
    except RecursionError:  # what the parser builds, the writer may not be able to walk
        return None
