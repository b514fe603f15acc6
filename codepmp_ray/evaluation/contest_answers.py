"""From a model's answer to a contest problem to a program with a function that tests can call.

Of a method: `result_of(*arguments)` calls it of a new Solution, or the function of that name where
the answer has no class. Of a whole program: `result_of(text)` runs it from the beginning with that
standard input and returns what it prints. Both as LiveCodeBench runs answers, whose usual imports
come first.
"""

from __future__ import annotations

from itertools import islice

from codepmp_ray.evaluation.code_extraction import (
    MAX_BLOCKS,
    MAX_CHARS,
    extract_function,
    in_one_file,
)
from codepmp_ray.evaluation.graders.final_answer import own_turn
from codepmp_ray.evaluation.tasks.code import CodeProblem
from codepmp_ray.synthesis.markdown import fences
from codepmp_ray.synthesis.python_syntax import parse_python

_MODULES = (
    "bisect", "collections", "copy", "datetime", "functools", "heapq", "itertools", "json", "math",
    "operator", "random", "re", "statistics", "string", "sys", "typing",
)  # fmt: skip
_PRELUDE = "\n".join([
    *(f"from {name} import *" for name in _MODULES),
    f"import io, time, {', '.join(_MODULES)}",
    "from builtins import abs, compile, pow",  # which operator, re and math have others of
    "sys.setrecursionlimit(50_000)",
    "",
])  # fmt: skip
_CALL_METHOD = """
def {entry}(*arguments):
    scope = globals()
    made = scope["Solution"]() if "Solution" in scope else None
    return (scope[{method!r}] if made is None else getattr(made, {method!r}))(*arguments)
"""
_RUN_PROGRAM = """
import io, sys, threading

def {entry}(text):
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    printed = io.BytesIO()
    sys.stdout = io.TextIOWrapper(printed, write_through=True)
    scope = {{"__name__": "__main__", "exit": sys.exit, "quit": sys.exit, "open": _open}}
    try:
        exec(compile({source!r}, "answer", "exec", dont_inherit=True), scope)
    except SystemExit:
        pass
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    return printed.getvalue().decode()

def _open(file, *arguments, **options):
    is_input = file in (0, "/dev/stdin")
    return sys.stdin if is_input else open(file, *arguments, **options)
"""


def build_contest_program(problem: CodeProblem, completion: str) -> str | None:
    """Source that defines `problem.entry_point`, or None when the answer holds no such code."""
    text = own_turn(completion[:MAX_CHARS])
    if problem.form == "method":
        code = extract_function(text, "Solution", _PRELUDE)
        if code is None or problem.method not in code:
            code = extract_function(text, problem.method, _PRELUDE)
        call = _CALL_METHOD.format(entry=problem.entry_point, method=problem.method)
        return None if code is None else in_one_file(_PRELUDE, code, call)
    code = _last_program(text)
    if code is None:
        return None
    source = in_one_file(_PRELUDE, code)
    return _RUN_PROGRAM.format(entry=problem.entry_point, source=source)


def _last_program(text: str) -> str | None:
    """The last block that prints something, or the whole text where it is code."""
    blocks = [fence.content for fence in islice(fences(text), MAX_BLOCKS)] or [text]
    for block in reversed(blocks):
        if ("print" in block or "write" in block) and parse_python(block) is not None:
            return block
    return None
