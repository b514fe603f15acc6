"""Private parts of other projects: the list in docs/architecture.md is what the code imports.

A part counts as private when a name on its way begins with one underscore, when its project says so
(vLLM's engine below `vllm.v1`), or when our code writes into a module of others.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OURS = ("codepmp_ray", "jobs", "serve")
SOURCES = [file for folder in OURS for file in sorted((ROOT / folder).rglob("*.py"))]
DECLARED_PRIVATE = ("vllm.v1.",)
# Underscored by their own documentation's choice, and public: os and collections.namedtuple.
PUBLIC = {"_exit", "_replace", "_fields", "_asdict"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def _own_names(trees: dict[str, ast.Module]) -> set[str]:
    """Underscored names that our code defines, so that `thing._name` may be one of them."""
    names: set[str] = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                # `other._name = value` may be a part of another project's object.
                names |= {node.attr} if _dotted(node).startswith(("self.", "cls.")) else set()
    return names


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression that is one, also below a subscript; empty for another one."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) and parts else ""


def _written_into(tree: ast.Module) -> Iterator[str]:
    """Variables of imported modules that our code changes."""
    modules = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            name = _dotted(target)
            if name.partition(".")[0] in modules - sys.stdlib_module_names:
                yield name


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def private_parts() -> set[tuple[str, str]]:
    """(part, file) of what is imported, written into, or an attribute or argument of theirs."""
    trees = {str(f.relative_to(ROOT)): ast.parse(f.read_text(encoding="utf-8")) for f in SOURCES}
    own = _own_names(trees)
    found: set[tuple[str, str]] = set()
    for file, tree in trees.items():
        for name in _imported(tree):
            if name.partition(".")[0] in OURS:
                continue
            is_private = any(_is_private(part) for part in name.split("."))
            if is_private or name.startswith(DECLARED_PRIVATE):
                found.add((name, file))
        found |= {(name, file) for name in _written_into(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.keyword):
                name = node.arg or ""
            else:
                continue
            if _is_private(name) and name not in own:
                found.add((name, file))
    return found


def _listed() -> dict[tuple[str, str], list[str]]:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text.split("## Private parts of others")[1].split("\n## ")[0]
    rows = {}
    for line in section.splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] and cells[1]:
            rows |= {(part, file): cells[3] for part in cells[0] for file in cells[1]}
    return rows


def test_the_list_is_what_the_code_imports() -> None:
    assert set(_listed()) == private_parts()


def test_each_is_noticed_by_a_test_that_is_there() -> None:
    for place, tests in _listed().items():
        assert tests, f"{place} names no test"
        assert all((ROOT / test).is_file() for test in tests), (place, tests)
