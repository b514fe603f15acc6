"""LiveCodeBench rows (its schema, contents of our own), and answers as models write them."""

import base64
import json
import pickle
import zlib

import pytest

from codepmp_ray.config.evaluation import CandidatesConfig, SandboxConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.grading import grade_candidates
from codepmp_ray.evaluation.problems import load_problems
from tests.sandbox_machine import require_sandbox

pytestmark = pytest.mark.slow


def case(given, wanted, kind):
    return {"input": given, "output": wanted, "testtype": kind}


def packed(tests):
    text = pickle.dumps(json.dumps(tests))
    return base64.b64encode(zlib.compress(text)).decode()


SUMS = {
    "question_id": "abc001_a",
    "question_content": "Print the sum of two integers, and half of it.",
    "starter_code": "",
    "public_test_cases": json.dumps([case("1 2\n", "3\n1.5\n", "stdin")]),
    "private_test_cases": packed([case("4 4\n", "8\n4.0\n", "stdin")]),
    "metadata": "{}",
}
ROTATE = {
    "question_id": "3001",
    "question_content": "Rotate nums by k.",
    "starter_code": "class Solution:\n    def rotate(self, nums: List[int], k: int):\n",
    "public_test_cases": json.dumps([case("[1, 2, 3]\n1", "[3, 1, 2]", "functional")]),
    "private_test_cases": json.dumps([case("[1]\n0", "[1]", "functional")]),
    "metadata": json.dumps({"func_name": "rotate"}),
}
PROGRAM = "a, b = map(int, input().split())\nprint(a + b)\nprint((a + b) / 2)"
METHOD = """class Solution:
    def rotate(self, nums: List[int], k: int) -> List[int]:
        found = deque(nums)
        found.rotate(k)
        return list(found)"""


def written(tmp_path, *rows):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def fenced(*blocks):
    return "\n\nso\n\n".join(f"```python\n{block}\n```" for block in blocks)


RIGHT = {
    "LiveCodeBench/abc001_a": [
        fenced(PROGRAM),
        PROGRAM,
        f"{fenced(PROGRAM)}\n\nIt prints:\n```\n3\n1.5\n```",
        fenced("print(0)", PROGRAM),
        fenced("import sys\na, b = map(int, sys.stdin.readline().split())\n"
               "sys.stdout.write(f'{a + b}  \\n{(a + b) / 2:.3f}\\n\\n')"),
        fenced("data = open(0).read().split()\na, b = map(int, data)\n"
               "print(a + b, (a + b) / 2, sep='\\n')\nexit()"),
        fenced("import sys\na, b = map(int, sys.stdin.buffer.read().split())\n"
               "sys.stdout.buffer.write(b'%d\\n%.1f' % (a + b, (a + b) / 2))\nsys.exit(0)"),
        fenced("import threading\ndef main():\n    a, b = map(int, input().split())\n"
               "    print(a + b)\n    print((a + b) / 2)\n"
               "if __name__ == '__main__':\n    t = threading.Thread(target=main)\n    t.start()"),
        fenced("from __future__ import annotations\ncount: Late = 0\ndef main():\n"
               "    global count\n    count += sum(map(int, input().split()))\n"
               "    print(count)\n    print(count / 2)\nmain()"),
    ],
    "LiveCodeBench/3001": [
        fenced(METHOD),
        METHOD,
        fenced("from typing import List\nfrom collections import deque", METHOD),
        fenced("def rotate(nums, k):\n    return nums[-k:] + nums[:-k] if k else nums"),
        fenced("class Solution:\n    def rotate(self, nums, k):\n        return self.of(nums, k)\n"
               "    def of(self, nums, k):\n        return (*nums[-1:], *nums[:-1])"),
        fenced(f"{METHOD}\n\nprint(Solution().rotate([1], 0))"),
    ],
}  # fmt: skip
WRONG = {
    "LiveCodeBench/abc001_a": [
        fenced("a, b = map(int, input().split())\nprint(a + b)"),
        fenced("print(3)\nprint(1.5)"),  # the public test by heart
        fenced("a, b = map(int, input().split())\nprint(a + b, (a + b) / 2)"),
        fenced(f"{PROGRAM}\nprint('done')"),
        fenced("a, b, c = map(int, input().split())\nprint(a + b)"),
        fenced("def solve(a, b):\n    print(a + b)\n    print((a + b) / 2)"),
        fenced("import os\nprint('3')\nos._exit(0)"),
        "The sum is 3 and half of it 1.5.",
    ],
    "LiveCodeBench/3001": [
        fenced("class Solution:\n    def rotate(self, nums, k):\n        return nums[k:]"),
        fenced("class Solution:\n    def turn(self, nums, k):\n        return nums"),
        fenced("class Solution:\n    def rotate(self, nums, k):\n        print(nums)"),
        fenced("class E(list):\n    def __eq__(self, other):\n        return True\n"
               "class Solution:\n    def rotate(self, nums, k):\n        return E()"),
        "[3, 1, 2]",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("answers", "is_right"), [(RIGHT, True), (WRONG, False)])
def test_programs_and_methods_are_judged_by_all_tests(tmp_path, answers, is_right):
    require_sandbox()
    rows = [
        {"candidate_id": f"{name}#{i}", "problem_id": name, "completion": text}
        for name, texts in answers.items()
        for i, text in enumerate(texts)
    ]
    task = CandidatesConfig(task="live_code_bench", task_path=written(tmp_path, SUMS, ROTATE))
    graded = grade_candidates(rows, task, SandboxConfig(time_limit_s=30))
    mistaken = [row for row in graded if row["passed"] is not is_right]
    assert mistaken == []


def test_hidden_tests_are_not_in_the_question(tmp_path):
    problems = load_problems("live_code_bench", written(tmp_path, SUMS, ROTATE))
    sums, rotate = problems.values()
    assert "standard input" in sums.prompt and "4 4" not in sums.prompt and "4 4" in sums.test
    assert "class Solution" in rotate.prompt and rotate.canonical_answer == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question_id": ""}, "question_id"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests"),
        ({"private_test_cases": "%%%"}, "private_test_cases cannot be read"),
        ({"private_test_cases": base64.b64encode(zlib.compress(b"x" * 99)[:-4]).decode()}, "cut"),
        ({"private_test_cases": packed([case("1", "1", "functional")])}, "testtype"),
        ({"private_test_cases": json.dumps([{"testtype": "stdin"}])}, "no text in 'input'"),
        (
            {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(print))).decode()},
            "holds an object",
        ),
    ],
)
def test_rows_that_cannot_be_read_are_errors(tmp_path, change, says):
    with pytest.raises(InputError, match="Row 1") as raised:
        load_problems("live_code_bench", written(tmp_path, SUMS | change))
    assert says in str(raised.value)


def test_a_method_needs_its_name(tmp_path):
    with pytest.raises(InputError, match="func_name"):
        load_problems("live_code_bench", written(tmp_path, ROTATE | {"metadata": "{}"}))
