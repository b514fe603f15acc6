import time

import pytest

from codepmp_ray.evaluation.code_extraction import (
    _without_odd_spaces,
    build_program,
    defines,
    extract_function,
    normalised_code,
)
from codepmp_ray.evaluation.graders.final_answer import own_turn
from codepmp_ray.evaluation.problems import load_problems
from codepmp_ray.synthesis.python_syntax import parse_python

FUNCTION = "def f(x):\n    return x + 1"


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{FUNCTION}\n```",
        f"Sure! Here it is:\n\n```\n{FUNCTION}\n```\nIt adds one.",
        f"~~~py\n{FUNCTION}\n~~~",
        f"```python\n{FUNCTION}\n",  # never closed
        FUNCTION,
        f"Here is the function:\n{FUNCTION}\n\nIt adds one to its argument.",
        f"```python\nprint(f(1))\n```\nwhere\n```python\n{FUNCTION}\n```",  # usage first
        f"````markdown\nAnswer:\n```python\n{FUNCTION}\n```\n````",
        "1. The code:\n\n   ```python\n   def f(x):\n       return x + 1\n   ```\n",
    ],
)
def test_the_function_is_found(text):
    code = extract_function(text, "f")
    assert code is not None
    scope = {}
    exec(code, scope)
    assert scope["f"](1) == 2


IS_RIGHT = "def f(x):\n    return x + 1"
IS_WRONG = "def f(x):\n    return x - 1"


def fenced(*blocks):
    return "\n\nText between.\n\n".join(f"```python\n{block}\n```" for block in blocks)


@pytest.mark.parametrize(
    "text",
    [
        fenced("def g(x):\n    return x + 1", "def f(x):\n    return g(x)"),
        fenced("def f(x):\n    return g(x)", "def g(x):\n    return x + 1"),
        fenced("import operator", "def f(x):\n    return operator.add(x, 1)"),
        fenced("from operator import add as plus", "ONE = 1", "def f(x):\n    return plus(x, ONE)"),
        fenced(
            "def h(x):\n    return x",
            "def g(x):\n    return h(x)",
            "def f(x):\n    return g(x) + 1",
        ),
        fenced("@str\ndef unused(): pass", IS_RIGHT),
        fenced(IS_WRONG, IS_RIGHT),
        f"{IS_WRONG}\n\nWait, that is wrong. Corrected:\n\n{IS_RIGHT}",
        fenced(IS_RIGHT, "def f(x):\n    ..."),
        fenced(IS_RIGHT, 'def f(x):\n    """Adds one."""\n    raise NotImplementedError'),
        fenced(IS_RIGHT, "print(f(1))", "f(2)  # 3"),
        fenced(IS_RIGHT, "def f(x):\n    return (x"),
        f"```python\n{IS_RIGHT}\n\ndef g(x:\n",
        f"```python\n{IS_RIGHT}\n\n\ndef g(x):\n    y = [1,\n```",
        f"{IS_RIGHT}\n\ndef g(x):\n    y = [1,",
        "    def f(x):\n        return x + 1\n",
        "Here it is:\n\n    def f(x):\n        return x + 1\n\nIt adds one.",
        "```python\nfrom typing import Callable\nf: Callable = lambda x: x + 1\n```",
        fenced("try:\n    def f(x):\n        return x + 1\nexcept ImportError:\n    pass"),
        fenced("if True:\n    def f(x):\n        return x + 1"),
        fenced("def plus(x):\n    return x + 1\n\nf = plus"),
        fenced("async def g(x): pass", IS_RIGHT),
        f"<think>\n{IS_WRONG}\n</think>\n{IS_RIGHT}",
        f"{IS_RIGHT}<|endoftext|>",
        f"\ufeff{IS_RIGHT}",
        "def f(x):\n\u00a0\u00a0\u00a0\u00a0return x + 1",
        fenced("from __future__ import annotations", IS_RIGHT),
    ],
)
def test_the_last_complete_definition_counts_with_what_it_needs(text):
    code = extract_function(_without_odd_spaces(own_turn(text)), "f")
    assert code is not None
    scope = {"__name__": "answer"}
    exec(code, scope)
    assert scope["f"](1) == 2


@pytest.mark.parametrize(
    "answer",
    [
        "    return x + y\n",
        "return x + y\n",
        "total = x + y\n    return total\n",
        "total = x + y\nreturn total\n",
        "if x:\n        return x + y\n    return y\n",
        '    return x + y\n\n\ndef sub(x: int, y: int):\n    """Subtract two numb',
        "    return x + y\n\nThis function adds the two numbers.\n",
        "    return x + y\n\n\nprint(add(2, 3))\n",
        "```python\n    return x + y\n```",
        "```python\nreturn x + y\n```",
        "    add = x + y\n    return add\n",
        "```python\nfrom __future__ import annotations\ndef add(x: Late, y): return x + y\n```",
    ],
)
def test_continuations_of_the_stub_are_completed(answer):
    problem = load_problems("humaneval")["HumanEval/53"]
    program = build_program(problem, answer)
    assert program is not None
    scope = {}
    exec(compile(program, "<answer>", "exec", dont_inherit=True), scope)
    assert scope["add"](2, 3) == 5


def test_imports_of_the_future_stand_before_the_helpers_of_the_stub():
    problem = load_problems("humaneval")["HumanEval/32"]
    code = "from __future__ import annotations\n" + problem.canonical_program
    program = build_program(problem, f"```python\n{code}\n```")
    assert program is not None and program.startswith("from __future__ import annotations\n")
    compile(program, "<answer>", "exec", dont_inherit=True)


def test_a_fence_inside_the_docstring_does_not_end_the_block():
    inner = 'def f(x):\n    """Use it so:\n```\nf(1)\n```\n    """\n    return x + 1'
    code = extract_function(f"```python\n{inner}\n```\nDone.", "f")
    assert code == inner


def test_imports_before_the_function_are_kept_in_bare_text():
    code = extract_function(f"Answer:\nimport math\n\n{FUNCTION}\nThat is all, folks", "f")
    assert code is not None and code.startswith("import math") and "folks" not in code


@pytest.mark.parametrize(
    "text",
    ["", "I cannot do that.", "```python\ndef g(x): return x\n```", "```python\ndef f(x:\n```"],
)
def test_no_code_is_none(text):
    assert extract_function(text, "f") is None
    assert build_program(load_problems("humaneval")["HumanEval/0"], text) is None


def test_helpers_of_the_stub_come_first_and_a_continuation_is_accepted():
    problem = load_problems("humaneval")["HumanEval/32"]
    program = build_program(problem, problem.canonical_answer)
    assert program is not None and program.startswith("import math")
    continued = build_program(problem, problem.canonical_program[len(problem.stub) :])
    assert continued is not None and defines(continued, "find_zero")


@pytest.mark.parametrize("text", ["(" * 5000, "\x00", "x = '\ud800'", "f" + "[" * 90_000])
def test_hostile_text_does_not_parse_and_does_not_raise(text):
    assert parse_python(text) is None
    assert extract_function(text, "f") is None


@pytest.mark.parametrize(
    "text",
    [
        "```python\ndef f(\n" * 2000,
        "```\n" * 12_500,
        "```\ndef g(\n" * 4_000,
        "```\ng\n" * 4_000 + "f\n" + "```\ng\n" * 4_000,
        "~~~\ng\n```\n" * 3_000 + "f\n" * 3_000,
        "\n" * 40_000 + "f",
        "def f(x):\n" + "    x = [" + "1, " * 15_000,
    ],
)
def test_endless_answers_stay_fast(text):
    start = time.monotonic()
    assert extract_function(text, "f") is None
    assert time.monotonic() - start < 60


def test_form_feeds_do_not_move_the_lines():
    inner = 'def f(x):\n    """A page.\n\x0c\n```\nf(1)\n```\n    """\n    return x + 1'
    assert extract_function(f"\u2028\x0b\n```python\n{inner}\n```\nDone.", "f") == inner
    bare = "def f(x):\n    '\x0c\x0c'\n    return x + 1"
    assert extract_function(f"{bare}\nThat_is_all", "f") == bare


def test_layout_comments_and_docstrings_do_not_count():
    left = 'def f(x):\n    """Doc."""\n    return x+1  # one'
    assert normalised_code(left) == normalised_code("def f(x):\n\n    return (x + 1)")
    assert normalised_code(left) != normalised_code("def f(x):\n    return x + 2")
    assert normalised_code("def f(") is None
