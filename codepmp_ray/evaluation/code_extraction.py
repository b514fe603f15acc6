"""From a model's answer to a program that defines the asked function.

Fences are found by a CommonMark parser; a block counts only if Python's own parser accepts it and
it defines the function. Tried in this order: each fenced block; each block extended over inner
fences (a docstring may hold one); blocks inside a block (an answer quoted as Markdown); the longest
run of lines of the bare text; the answer as a continuation of the stub.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator
from itertools import islice

from markdown_it import MarkdownIt

from codepmp_ray.evaluation.problems import Problem

_MARKDOWN = MarkdownIt("commonmark")
# Answers that repeat a fence for ever would otherwise cost quadratic time.
_MAX_LINES = 400
_MAX_CHARS = 50_000
_MAX_BLOCKS = 200


def build_program(problem: Problem, completion: str) -> str | None:
    """Source that defines the problem's function, or None when the answer holds no such code."""
    text = completion[:_MAX_CHARS]
    code = extract_function(text, problem.entry_point)
    if code is not None:
        return f"{problem.prelude}\n{code}\n"
    for body in _continuations(text):
        program = problem.stub + body
        if parse(program) is not None:
            return program
    return None


def extract_function(text: str, name: str) -> str | None:
    """The part of `text` that is valid Python and defines the function `name`, or None."""
    for code in islice((c for c in _fenced_candidates(text, 0) if name in c), _MAX_BLOCKS):
        if defines(code, name):
            return code
    return _bare_code(text, name)


def parse(code: str) -> ast.Module | None:
    """Syntax tree, or None. Untrusted text may be too deep or hold null bytes: also None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in generated strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defines(code: str, name: str) -> bool:
    """Whether `code` parses and binds `name` at its top level by def or assignment."""
    tree = parse(code)
    if tree is None:
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return True
    return False


def normalised_code(program: str) -> str | None:
    """Text that is equal for programs that differ only in layout, comments and docstrings.

    Majority voting groups answers by it. None when the program does not parse.
    """
    tree = parse(program)
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
    try:
        return ast.dump(tree)
    except RecursionError:
        return None


def _fenced_candidates(text: str, depth: int) -> Iterator[str]:
    lines = text.splitlines()
    fences = [token for token in _MARKDOWN.parse(text) if token.type == "fence"]
    for fence in fences:
        yield textwrap.dedent(fence.content)
    for fence in fences:
        if fence.map is None:
            continue
        start = fence.map[0] + 1
        for end in range(fence.map[1], len(lines)):
            if lines[end].strip().startswith(fence.markup):
                yield textwrap.dedent("\n".join(lines[start:end]))
    if depth < 2:
        for fence in fences:
            yield from _fenced_candidates(fence.content, depth + 1)


def _bare_code(text: str, name: str) -> str | None:
    lines = text.splitlines()[:_MAX_LINES]
    lines = [line for line in lines if not line.strip().startswith("```")]
    starts = [
        index
        for index, line in enumerate(lines)
        if line.startswith(("import ", "from ", "def ", "async def ", "class ", "@"))
    ]
    definition = next((i for i in starts if f"def {name}" in lines[i]), None)
    if definition is None:
        return None
    for start in (starts[0], definition):
        for end in range(len(lines), definition, -1):
            code = "\n".join(lines[start:end])
            if defines(code, name):
                return _without_trailing_prose(code)
    return None


def _without_trailing_prose(code: str) -> str:
    """`code` up to its last statement that is no mere expression ("That is all" parses)."""
    tree = parse(code)
    statements = [node for node in tree.body if not isinstance(node, ast.Expr)] if tree else []
    return "\n".join(code.splitlines()[: statements[-1].end_lineno]) if statements else code


def _continuations(text: str) -> Iterator[str]:
    """Indented text, as a base model continues the stub; flat text would sit at module level."""
    bodies = [token.content for token in _MARKDOWN.parse(text) if token.type == "fence"]
    for body in [*bodies, text]:
        lines = [line for line in body.splitlines() if line.strip()]
        if lines and lines[0].startswith((" ", "\t")):
            yield body.rstrip() + "\n"
