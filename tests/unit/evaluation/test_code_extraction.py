import time

import pytest

from codepmp_ray.evaluation.code_extraction import (
    build_program,
    defines,
    extract_function,
    normalised_code,
)
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
