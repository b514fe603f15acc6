"""Pairs that this project makes by itself: Python functions against corrupted copies.

The prompt is a function's signature and docstring, chosen its code, rejected the same code after
one wrong edit. Both sides are printed by `ast`, so that layout tells nothing, and of several edits
the one is taken that keeps longer and shorter copies equally many, so that length does not either.
They are no PMP pairs, whose sides are the answers of two models.

The paper's rejected answers come from a weak model. Where none is at hand, these pairs show trends
of training; every table says that they are not CodePMP's data.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.records import stable_id

_MAX_LINES, _MIN_STATEMENTS, _MAX_CHARS = 40, 2, 1_200
_NUM_TRIES = 8  # edits of one function, of which one is taken
_MAX_FOREIGN = 64
_MAX_DOCSTRING_CHARS = 500
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "idle_test"}
_STATEMENTS = (ast.Assign, ast.AugAssign, ast.Expr, ast.Return)
_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip

Edit = Callable[[ast.FunctionDef, list[ast.stmt], random.Random], bool]


def corrupt(function: ast.FunctionDef, foreign: list[ast.stmt], rng: random.Random) -> str | None:
    """Name of the edit that `function` was given in place; None if none could be made.

    Args:
        foreign: statements of other functions, one of which may be put in.
    """
    edits = list(_EDITS.items())
    rng.shuffle(edits)
    return next((name for name, edit in edits if edit(function, foreign, rng)), None)


def _swap_operator(function: ast.FunctionDef, foreign: list[ast.stmt], rng: random.Random) -> bool:
    found = [n for n in ast.walk(function) if isinstance(n, ast.Compare | ast.BinOp | ast.BoolOp)]
    rng.shuffle(found)
    for node in found:
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
            node.ops[0] = _COMPARE[type(node.ops[0])]()
            return True
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            node.op = _BINARY[type(node.op)]()
            return True
        if isinstance(node, ast.BoolOp):
            node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            return True
    return False


def _swap_variable(function: ast.FunctionDef, foreign: list[ast.stmt], rng: random.Random) -> bool:
    """One read of a local name becomes that of another."""
    arguments = {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
    known = arguments | {n.id for n in names if isinstance(n.ctx, ast.Store)}
    reads = [n for n in names if isinstance(n.ctx, ast.Load) and n.id in known]
    if not reads or len(known) < 2:
        return False
    node = rng.choice(reads)
    node.id = rng.choice(sorted(known - {node.id}))
    return True


def _drop_statement(function: ast.FunctionDef, foreign: list[ast.stmt], rng: random.Random) -> bool:
    bodies = [body for body in _bodies(function) if len(body) > 1]
    if not bodies:
        return False
    body = rng.choice(bodies)
    body.pop(rng.randrange(len(body)))
    return True


def _insert_statement(
    function: ast.FunctionDef, foreign: list[ast.stmt], rng: random.Random
) -> bool:
    if not foreign:
        return False
    body = rng.choice(_bodies(function))
    body.insert(rng.randrange(len(body) + 1), rng.choice(foreign))
    return True


def _bodies(function: ast.FunctionDef) -> list[list[ast.stmt]]:
    return [
        body
        for node in ast.walk(function)
        if isinstance(body := getattr(node, "body", None), list) and body
    ]


_EDITS: dict[str, Edit] = {
    "operator": _swap_operator,
    "variable": _swap_variable,
    "dropped": _drop_statement,
    "inserted": _insert_statement,
}


def function_pairs(functions: Iterable[dict[str, Any]], seed: int = 0) -> Iterator[Row]:
    """A pair for every function of which one can be made.

    `functions` have `code` and may have `docstring`, `source` and `path`; the pair's origin
    (`source_id`) is the file, so that test pairs come from files that nothing is trained on.
    """
    foreign: list[ast.stmt] = []
    lead = 0
    for row in functions:
        function = _parse(row.get("code"))
        if function is None:
            continue
        text = _docstring(function) or row.get("docstring") or ""
        pair = _pair(function, text, foreign, seed, lead)
        if pair is not None:
            lead += _lead(pair["chosen"], pair["rejected"])
            origin = f"{row.get('source') or ''}:{row.get('path') or pair['pair_id']}"
            yield pair | {"source_id": stable_id(origin)}
        foreign = _with(function, foreign)


def stdlib_functions() -> Iterator[dict[str, Any]]:
    """Functions with docstrings of this interpreter's standard library, by path."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if _SKIPPED & set(name.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in old modules
                tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                code = ast.unparse(node)
                yield {"source": "stdlib", "path": str(name), "code": code}


def humaneval_pairs(seed: int = 0) -> Iterator[Row]:
    """Canonical solutions of HumanEval against corrupted ones; origin is the problem."""
    from codepmp_ray.evaluation.tasks.code import CodeProblem
    from codepmp_ray.evaluation.tasks.loading import read_problems
    from codepmp_ray.evaluation.tasks.registry import problem_task

    foreign: list[ast.stmt] = []
    lead = 0
    for problem in read_problems(problem_task("humaneval")):
        assert isinstance(problem, CodeProblem)
        tree = ast.parse(problem.canonical_program)
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        function = next(n for n in functions if n.name == problem.entry_point)
        pair = _pair(function, _docstring(function), foreign, seed, lead)
        if pair is not None:
            lead += _lead(pair["chosen"], pair["rejected"])
            yield pair | {"problem_id": problem.problem_id, "source_id": None}
        foreign = _with(function, foreign)


def _with(function: ast.FunctionDef, foreign: list[ast.stmt]) -> list[ast.stmt]:
    own = [s for s in function.body if isinstance(s, _STATEMENTS) and not _is_text(s)]
    return (own + foreign)[:_MAX_FOREIGN]


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, which would be longer than any statement."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _lead(chosen: str, rejected: str) -> int:
    """1 where chosen is the longer side, -1 where it is the shorter one."""
    return (len(chosen) > len(rejected)) - (len(chosen) < len(rejected))


def _pair(
    function: ast.FunctionDef, text: str, foreign: list[ast.stmt], seed: int, lead: int
) -> Row | None:
    """`function`'s docstring is gone, whatever comes of it.

    Args:
        lead: how many more chosen sides were the longer one so far.
    """
    if _docstring(function):
        function.body = function.body[1:]
    if len(function.body) < _MIN_STATEMENTS or not text.strip():
        return None
    chosen = ast.unparse(function)
    if len(chosen) > _MAX_CHARS or chosen.count("\n") >= _MAX_LINES:
        return None
    signature = chosen[: chosen.index("\n")]
    rng = random.Random(f"{seed}|{chosen}")
    made = [_corrupted(chosen, foreign, rng) for _ in range(_NUM_TRIES)]
    copies = [text for text in made if text is not None and text != chosen]
    if not copies:
        return None
    rejected = min(copies, key=lambda copy: abs(lead + _lead(chosen, copy)))
    prompt = f"Write this Python function.\n\n{signature}\n\n{text.strip()[:_MAX_DOCSTRING_CHARS]}"
    return {
        "pair_id": stable_id(prompt, chosen, rejected),
        "prompt": prompt,
        "messages": None,
        "chosen": chosen,
        "rejected": rejected,
        "margin": None,
        "problem_id": None,
    }


def _corrupted(chosen: str, foreign: list[ast.stmt], rng: random.Random) -> str | None:
    """The code after one edit; None where none could be made."""
    copy = ast.parse(chosen).body[0]
    assert isinstance(copy, ast.FunctionDef), "what was printed is the function"
    if corrupt(copy, foreign, rng) is None:
        return None
    return ast.unparse(ast.fix_missing_locations(copy))


def _parse(code: Any) -> ast.FunctionDef | None:
    if not isinstance(code, str):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return None
    return body[0] if len(body) == 1 and isinstance(body[0], ast.FunctionDef) else None


def _docstring(function: ast.FunctionDef) -> str:
    return ast.get_docstring(function) or ""
