"""Ways of writing one answer: "add one to x" is asked, `f(1) == 2` tells whether it was found."""

import pytest

from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.tasks.code import CodeProblem

STUB = 'def f(x):\n    """Add one to x."""\n'
PROBLEM = CodeProblem("Own/1", STUB, f"{STUB}    return x + 1\n", "", "f")
RIGHT = "def f(x):\n    return x + 1"
WRONG = "def f(x):\n    return x - 1"


def py(*blocks, mark="python"):
    return "\n\nSome words.\n\n".join(f"```{mark}\n{block}\n```" for block in blocks)


def result_of(text):
    """What f(1) gives of the program that an answer is; None for none, and where it raises."""
    program = build_program(PROBLEM, text)
    if program is None:
        return None
    scope = {"__name__": "answer"}
    try:
        exec(compile(program, "<answer>", "exec", dont_inherit=True), scope)
        return scope["f"](1)
    except Exception:  # noqa: BLE001 - whatever an answer raises
        return None


@pytest.mark.parametrize("mark", ["python", "Python3", "py", "python title=f.py", "{python}", ""])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_any_fence_is_read(mark, ends):
    assert result_of(f"Sure:\n\n{py(RIGHT, mark=mark)}\n\nDone.".replace("\n", ends)) == 2


@pytest.mark.parametrize(
    "text",
    [
        # Where the code stands
        f"{RIGHT}\n```",
        f"{RIGHT}\n```\nThis adds one.",
        "    return x + 1\n```\nThis adds one.",
        f"[PYTHON]\n{RIGHT}\n[/PYTHON]",
        f"[BEGIN]\n{RIGHT}\n[DONE]\n",
        f"<code>\n{RIGHT}\n</code>",
        "def f(x): return x + 1",
        "> ```python\n> def f(x):\n>     return x + 1\n> ```",
        "- Code:\n\n  ```python\n  def f(x):\n      return x + 1\n  ```\n- Done.",
        f"### Solution\n{py(RIGHT)}\n### Explanation\nIt adds 1.",
        f"<think>{py(WRONG)}</think>\n{py(RIGHT)}",
        # What stands beside it
        py(f'{RIGHT}\n\nif __name__ == "__main__":\n    print(f(int(input())))'),
        py(f"{RIGHT}\n\n\ndef main():\n    import sys\n    print(f(int(sys.argv[1])))"),
        py(f"{RIGHT}\n\nassert f(1) == 2\nprint(f(5))"),
        py(RIGHT, ">>> f(1)\n2"),
        py(RIGHT, "2"),
        f"{py(RIGHT)}\n\n{py('$ python f.py', mark='bash')}",
        py(RIGHT, "from solution import f\nassert f(1) == 2"),
        py(RIGHT, "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.f = 1"),
        py(RIGHT, "result = f(1)\nprint(result)"),
        # Several definitions
        py(WRONG, RIGHT),
        f"{py(WRONG, mark='text')}\nis wrong. Corrected:\n{py(RIGHT)}",
        py(f"{WRONG}\n\n\n{RIGHT}"),
        py("from typing import overload\n@overload\ndef f(x: int) -> int: ...\n" + RIGHT),
        py(RIGHT, "def f(x):\n    pass  # as above"),
        # What it needs of other blocks
        py("COUNT = 0", "def f(x):\n    global COUNT\n    COUNT += 1\n    return x + COUNT"),
        py("ONE = 1", "def f(x, one=ONE):\n    return x + one"),
        py("class A:\n    one = 1", "class B(A):\n    pass", "def f(x):\n    return x + B.one"),
        py("def twice(g):\n    return lambda x: g(g(x))", "@twice\ndef f(x):\n    return x + 0.5"),
        py("import functools", "@functools.lru_cache(None)\ndef f(x):\n    return x + 1"),
        py("def odd(x):\n    return f(x - 1) if x else 2", "def f(x):\n    return odd(x - 1)"),
        py("from math import (\n    floor,\n    ceil,\n)", "def f(x):\n    return floor(x) + 1"),
        py("Number = int | float", "def f(x: Number) -> Number:\n    return x + 1"),
        py("def g(x):\n    return 0", "def g(x):\n    return x + 1", "def f(x):\n    return g(x)"),
        # Forms of definitions
        py("class Solution:\n    def f(self, x):\n        return x + 1\n\nf = Solution().f"),
        py("class S:\n    def f(self, x):\n        return x + 1\n\ndef f(x):\n    return S().f(x)"),
        py("import functools, operator\nf = functools.partial(operator.add, 1)"),
        py("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n" + RIGHT),
        py("import asyncio\nasync def g(x):\n    return x + 1\n"
           "def f(x):\n    return asyncio.run(g(x))"),
        py("def f(x):\n    match x:\n        case 1:\n            return 2\n    return x + 1"),
        py("def f(x):\n    if (y := x + 1):\n        return y"),
        py("def f(x):\n    return x + 1 if x < 2 else f(x - 1) + 1"),
        py("def f(x: 'Unknown') -> 'Unknown':\n    return x + 1"),
        # Imports of the future
        py(f"from __future__ import annotations\n\ndef g(x: Late): ...\n{RIGHT}"),
        py(f'"""About."""\n\nfrom __future__ import annotations\n{RIGHT}'),
        py(f"from __future__ import (\n    annotations,\n    division,\n)\n{RIGHT}"),
        py("ONE = 1", "from __future__ import annotations\ndef f(x):\n    return x + ONE"),
        py("I = 1", "from __future__ import (annotations,\n division)\ndef f(x):\n return x + I"),
        py("from __future__ import annotations; import math\ndef f(x):\n    return math.ceil(2)"),
    ],
)  # fmt: skip
def test_right_answers_are_found_however_they_are_written(text):
    assert result_of(text) == 2


@pytest.mark.parametrize(
    "text",
    [
        py(WRONG),
        py(RIGHT, WRONG),
        py("def F(x):\n    return x + 1"),
        py("def g(x):\n    return x + 1"),
        py("class Solution:\n    def f(self, x):\n        return x + 1"),
        py("def f(self, x):\n    return x + 1"),
        py("async def f(x):\n    return x + 1"),
        py("def f(x):\n    yield x + 1"),
        py("def f(x):\n    print(x + 1)"),
        py(f"{RIGHT}\n\nf = f(1)"),
        py("def f(x: Unknown) -> Unknown:\n    return x + 1"),
        py("def f(x):\n    return plus(x, 1)"),
        py(f"x = int(input())\n{RIGHT}\nprint(f(x))"),
        py(f"{RIGHT}\n\nassert f(1) == 3"),
        py(f"{RIGHT}\nraise SystemError"),
        py("def f(x):\n    return x + 1 +"),
        ">>> def f(x):\n...     return x + 1\n",
        "Just return x + 1.",
        "I cannot return that.",
        "f adds one to x, so f(1) is 2.",
        "yield x + 1",
        "",
    ],
)
def test_wrong_answers_do_not_pass(text):
    result = result_of(text)
    if hasattr(result, "close"):
        result.close()  # a coroutine
    assert result != 2
