"""One wrong edit of a Python function: the rejected side of pairs that no model has to write.

The paper's rejected answers come from a weak model. Where none is at hand, these pairs show trends
of training; they are not CodePMP's data and every table says so. `code_pairs` chooses edits so that
length does not give them away.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable

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
