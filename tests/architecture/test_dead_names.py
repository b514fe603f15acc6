"""What only tests use is dead: every name of a module is used by the product or a benchmark.

A name counts as used where its own module reads it (a function's own body aside), where another
module imports it, where it is an attribute of its module, and where a text names it as
`module:name` or `module.name`. Decorated functions are registered.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("codepmp_ray", "serve", "jobs", "benchmarks")
# A bound, a list, a hook, and plain forms that tests hold the product against.
FOR_TESTS = {
    "codepmp_ray.preference.encoding.encode_pair",
    "codepmp_ray.scoring.best_of_n.best_of_n",
    "codepmp_ray.synthesis.isolation.max_crashes_of_one_row",
    "serve.front.middlewares",  # Serve's proxy calls it, by the environment of its node
}
NAMED = re.compile(r"[.:](\w+)$")
GUEST = "codepmp_ray.evaluation.sandbox.guest"  # run as files of their own, which import otherwise
ANYWHERE = "*"
Tree = ast.Module


def _trees() -> dict[str, Tree]:
    found = {}
    for file in (file for folder in FOLDERS for file in sorted(ROOT.glob(f"{folder}/**/*.py"))):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        # `codepmp_ray/serve` is a link to `serve`, and what it holds imports relatively.
        name = name.replace("codepmp_ray.serve", "serve", 1)
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def _used(trees: dict[str, Tree]) -> dict[str, set[str]]:
    """By module: names that other modules take from it."""
    used: dict[str, set[str]] = defaultdict(set)
    for tree in trees.values():
        modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                above = (node.module or "").replace("codepmp_ray.serve", "serve", 1)
                above = ".".join(filter(None, ("serve" if node.level else "", above)))
                for alias in node.names:
                    used[above].add(alias.name)
                    modules[alias.asname or alias.name] = f"{above}.{alias.name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used[modules.get(node.value.id, "")].add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used[ANYWHERE] |= set(NAMED.findall(node.value))
    return used


def _defined(tree: Tree) -> dict[str, int]:
    """Names of a module, and how often their own definitions read them."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.decorator_list or isinstance(node, ast.ClassDef):
                found[node.name] = _reads(node).count(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: 0 for name in targets if isinstance(name, ast.Name)}
    return found


def _reads(tree: ast.AST) -> list[str]:
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return [name.id for name in names if isinstance(name.ctx, ast.Load)]


def test_every_name_is_used_by_more_than_tests() -> None:
    trees = _trees()
    used = _used(trees)
    dead = set()
    for module, tree in trees.items():
        if module.startswith((GUEST, "benchmarks")):
            continue
        reads, known = Counter(_reads(tree)), {*used[module], *used[ANYWHERE], "__all__"}
        dead |= {
            f"{module}.{name}"
            for name, own in _defined(tree).items()
            if name not in known and reads[name] <= own
        }
    assert dead == FOR_TESTS
