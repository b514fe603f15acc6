"""From a model's answer to a program that defines the asked function.

Fences are found by a CommonMark parser; code counts only if Python's own parser accepts it. Tried
in this order: the fenced blocks; each block extended over inner fences (a docstring may hold one),
and blocks inside a block (an answer quoted as Markdown); blocks that end in the middle, up to
there; the runs of code in the bare text; the answer as a continuation of the stub.

Of several definitions the last complete one counts, since an answer may correct itself. What it
uses and does not define is taken from the other blocks: helpers and imports have fences of their
own.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice

from codepmp_ray.evaluation.graders.final_answer import own_turn
from codepmp_ray.evaluation.tasks.code import CodeProblem
from codepmp_ray.synthesis.markdown import fences, split_lines
from codepmp_ray.synthesis.python_syntax import parse_python

# Answers that repeat a fence for ever would otherwise cost quadratic time.
_MAX_LINES = 400
MAX_CHARS = 50_000
MAX_BLOCKS = 200
_MAX_PARSES = 1_000
_FUTURE = re.compile(r"^from __future__ import (?:\([^()]*\).*|[^(\n]*)$", re.MULTILINE)
_STARTS = re.compile(
    r"[ \t]*(?:import |from [\w.]+ import|(?:async )?def |class |@\w|\w+(?:\s*:[^=]+)?\s*=(?!=))"
)
_TOP_LEVEL = re.compile(r"(?:async )?def |class |import |from |@")
_IMPORTS = (ast.Import, ast.ImportFrom)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def build_program(problem: CodeProblem, completion: str) -> str | None:
    """Source that defines the problem's function, or None when the answer holds no such code."""
    text = _without_odd_spaces(own_turn(completion[:MAX_CHARS]))
    code = extract_function(text, problem.entry_point, problem.prelude)
    if code is not None:
        return in_one_file(problem.prelude, code)
    stub = problem.stub.rstrip()
    num_lines = len(split_lines(stub))
    for body in _continuations(text, stub):
        lines = split_lines(f"{stub}\n{body}")[: num_lines + _MAX_LINES]
        if (program := _longest_code(lines, num_lines)) is not None:
            return program + "\n"
    return None


def extract_function(text: str, name: str, prelude: str = "") -> str | None:
    """The part of `text` that is valid Python and defines the function `name`, or None.

    Args:
        prelude: source that comes before it; what that binds is not looked for in other blocks.
    """
    blocks = [textwrap.dedent(fence.content) for fence in islice(fences(text), MAX_BLOCKS)]
    code = _assembled(blocks, name, prelude)
    if code is None:
        wider = islice(_wider_blocks(text, name, 0), MAX_BLOCKS)
        code = next((block for block in wider if defines(block, name)), None)
    if code is None:
        cut = [split_lines(block)[:_MAX_LINES] for block in blocks if name in block][-3:]
        code = _assembled(filter(None, map(_longest_code, cut)), name, prelude)
    return code or _assembled(_bare_blocks(text, name), name, prelude)


def defines(code: str, name: str) -> bool:
    """Whether `code` parses and binds `name` in its module by def, class or assignment."""
    tree = parse_python(code)
    return tree is not None and _definition(tree, name) is not None


def normalised_code(program: str) -> str | None:
    """Text that is equal for programs that differ only in layout, comments and docstrings.

    Majority voting groups answers by it. None when the program does not parse.
    """
    tree = parse_python(program)
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


def _assembled(blocks: Iterable[str], name: str, prelude: str) -> str | None:
    """The last block that defines `name` completely, behind what it needs of the others."""
    parsed = [(block, tree) for block in blocks if (tree := parse_python(block)) is not None]
    found = [(block, tree) for block, tree in parsed if _definition(tree, name) is not None]
    if not found:
        return None
    whole = [pair for pair in found if not _is_stub(_definition(pair[1], name))]
    code, tree = (whole or found)[-1]
    own = {name}.union(*map(_bound, tree.body))
    own |= set[str]().union(*map(_bound, getattr(parse_python(prelude), "body", [])))
    # Of what others define the last one counts, too.
    offered = {
        bound: (block, node)
        for block, other in parsed
        if other is not tree
        for node in other.body
        for bound in _bound(node)
    }
    taken: dict[ast.stmt, str] = {}
    wanted = _used(tree)
    while wanted:
        block, node = offered.get(needed := wanted.pop(), (code, None))
        if node is not None and needed not in own and node not in taken:
            first = min(item.lineno for item in (node, *getattr(node, "decorator_list", [])))
            taken[node] = "\n".join(split_lines(block)[first - 1 : node.end_lineno])
            wanted |= _used(node)
    order = [node for _, other in parsed for node in other.body if node in taken]
    return in_one_file(*(taken[node] for node in order), code) if order else code


def in_one_file(*parts: str) -> str:
    """The parts below each other, after imports of __future__, which Python wants first."""
    futures = [line for part in parts for line in _FUTURE.findall(part)]
    return "\n".join([*dict.fromkeys(futures), *(_FUTURE.sub("", part) for part in parts)]) + "\n"


def _definition(tree: ast.Module, name: str) -> ast.stmt | None:
    """The last statement that makes `name` a function; `add = x + y` is a local variable's."""
    values = (ast.Lambda, ast.Name, ast.Attribute, ast.Call)
    for node in reversed(tree.body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and not isinstance(node.value, values):
            continue
        if name in _bound(node) and not isinstance(node, _IMPORTS):
            return node
    return None


def _is_stub(node: ast.stmt | None) -> bool:
    """Whether a definition only says how the function is called: `...`, a docstring, a raise."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    says_nothing = [
        isinstance(item, ast.Pass)
        or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
        or (isinstance(item, ast.Raise) and "NotImplementedError" in ast.dump(item))
        for item in node.body
    ]
    return all(says_nothing)


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement binds in its module."""
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    names: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, _IMPORTS):
            names |= {(item.asname or item.name).partition(".")[0] for item in inner.names}
        elif isinstance(inner, _DEFINITIONS):
            names.add(inner.name)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
    return names


def _used(tree: ast.AST) -> set[str]:
    """Names that `tree` reads and neither binds anywhere nor has from Python."""
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    inner = {node.arg for node in nodes if isinstance(node, ast.arg)}
    stored = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    outer = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    return ({node.id for node in names} - stored - inner | outer) - set(dir(builtins))


def _wider_blocks(text: str, name: str, depth: int) -> Iterator[str]:
    """Blocks over inner fences, and in blocks; the others are not even put together."""
    blocks = fences(text) if name in text else []
    lines = split_lines(text)
    named = [i for i, line in enumerate(lines) if name in line]
    marks = [i for i, line in enumerate(lines) if line.strip().startswith(("```", "~~~"))]
    for fence in blocks:
        first = bisect_left(named, fence.start + 1)
        if first == len(named):
            break
        after = max(fence.stop, named[first] + 1)
        for end in marks[bisect_left(marks, after) :]:
            if lines[end].strip().startswith(fence.markup):
                yield textwrap.dedent("\n".join(lines[fence.start + 1 : end]))
    if depth < 2:
        for fence in blocks:
            if name in fence.content:
                yield from (textwrap.dedent(inner.content) for inner in fences(fence.content))
                yield from _wider_blocks(fence.content, name, depth + 1)


def _bare_blocks(text: str, name: str) -> Iterator[str]:
    """The runs of lines of a text that are code, each without the indent of its first line."""
    lines = split_lines(text)[:_MAX_LINES] if name in text else []
    lines = [line for line in lines if not line.strip().startswith("```")]
    at = num_parses = 0
    while at < len(lines) and num_parses < _MAX_PARSES:
        code = None
        if _STARTS.match(lines[at]):
            indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
            rest = range(at, len(lines))
            outer = (i for i in rest if lines[i].strip() and not lines[i].startswith(indent))
            run = [line.removeprefix(indent) for line in lines[at : next(outer, len(lines))]]
            code = _longest_code(run)
            num_parses += len(run) + 1 - (len(split_lines(code)) if code else 0)
        if code is not None:
            yield _without_trailing_prose(code)
        at += len(split_lines(code)) if code else 1


def _longest_code(lines: list[str], at_least: int = 0) -> str | None:
    """The most lines from the first one on that Python accepts; more than `at_least` of them."""
    for end in range(len(lines), at_least, -1):
        if lines[end - 1].strip() and parse_python(code := "\n".join(lines[:end])) is not None:
            return code
    return None


def _without_trailing_prose(code: str) -> str:
    """`code` up to its last statement that is no mere expression ("That is all" parses)."""
    tree = parse_python(code)
    statements = [node for node in tree.body if not isinstance(node, ast.Expr)] if tree else []
    return "\n".join(split_lines(code)[: statements[-1].end_lineno]) if statements else code


def _continuations(text: str, stub: str) -> Iterator[str]:
    """Bodies of the stub's function, as a base model continues it; the first indent may be lost."""
    indent = re.search(r"^([ \t]+)\S.*\Z", stub, re.MULTILINE)
    for content in [*(fence.content for fence in fences(text)), text]:
        body = content.lstrip("\r\n")
        first, _, rest = body.partition("\n")
        if first.startswith((" ", "\t")):
            yield body
        elif indent and re.search(r"\b(?:return|yield)\b", body) and not _TOP_LEVEL.match(first):
            is_first_only = not re.search(r"^\S", rest, re.MULTILINE)
            yield indent[1] + body if is_first_only else textwrap.indent(body, indent[1])


def _without_odd_spaces(text: str) -> str:
    text = text.replace("\ufeff", "")
    return re.sub(r"^[ \t\u00a0]+", lambda m: m[0].replace("\u00a0", " "), text, flags=re.MULTILINE)
