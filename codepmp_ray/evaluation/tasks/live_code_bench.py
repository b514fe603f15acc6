"""LiveCodeBench (Jain et al. 2024), code generation: contest problems with hidden tests.

Rows are those of its files test*.jsonl. AtCoder and Codeforces ask for programs that read standard
input and print; LeetCode asks for a method of a class Solution. Outputs compare as the benchmark's
own: line by line without outer spaces, or number by number. Its set on the hub is a program, which
`datasets` no longer runs, so a file has to be named.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from typing import Any, NoReturn

from codepmp_ray.evaluation.tasks.base import BadRow, ProblemTask, Row, text_of
from codepmp_ray.evaluation.tasks.code import CodeProblem, as_code_block

ENTRY = "result_of"  # what tests call of an answer, see evaluation.contest_answers
_MAX_TEST_BYTES = 256 << 20
_PROGRAM = (
    "Write a Python program that reads standard input and prints the answer to standard output. "
    "Answer with the whole program in one Python code block."
)
_METHOD = "Complete the following class. Answer with the whole class in one Python code block."
_CHECK_PROGRAM = """\
import json
from decimal import Decimal, InvalidOperation

CASES = json.loads({cases!r})


def same_line(given, wanted):
    if given == wanted:
        return True
    try:
        return [Decimal(part) for part in given.split()] == [Decimal(p) for p in wanted.split()]
    except InvalidOperation:
        return False


def check(candidate):
    for number, (given, wanted) in enumerate(CASES):
        sides = [
            [line.strip() for line in text.strip().split("\\n")]
            for text in (candidate(given), wanted)
        ]
        same = len(sides[0]) == len(sides[1]) and all(map(same_line, *sides))
        assert same, f"test {{number}}"
"""
_CHECK_METHOD = """\
import json

CASES = json.loads({cases!r})


def check(candidate):
    for number, (given, wanted) in enumerate(CASES):
        found = candidate(*map(json.loads, given.split("\\n")))
        found = list(found) if isinstance(found, tuple) else found
        assert found == json.loads(wanted), f"test {{number}}"
"""


def problem(row: Row, index: int) -> CodeProblem:
    """One row. Raises BadRow."""
    name, question = text_of(row, "question_id"), text_of(row, "question_content")
    tests = _tests(row, "public_test_cases") + _tests(row, "private_test_cases")
    if not tests:
        raise BadRow("no tests in public_test_cases or private_test_cases")
    kinds = {test.get("testtype") for test in tests}
    if len(kinds) > 1 or not kinds <= {"stdin", "functional"}:
        raise BadRow(f"testtype is {sorted(map(str, kinds))}, not all stdin or all functional")
    try:
        cases = json.dumps([(_text(test, "input"), _text(test, "output")) for test in tests])
        is_program = kinds == {"stdin"}
        method = "" if is_program else _text(json.loads(text_of(row, "metadata")), "func_name")
    except ValueError as error:
        raise BadRow(f"tests or metadata: {error}") from error
    starter = row.get("starter_code") or ""
    return CodeProblem(
        problem_id=f"LiveCodeBench/{name}",
        stub="",
        canonical_program="",
        test=(_CHECK_PROGRAM if is_program else _CHECK_METHOD).format(cases=cases),
        entry_point=ENTRY,
        form="program" if is_program else "method",
        method=method,
        asked=f"{question.strip()}\n\n"
        + (_PROGRAM if is_program else f"{_METHOD}\n\n{as_code_block(str(starter))}"),
    )


def _tests(row: Row, column: str) -> list[Row]:
    """Of public ones the text is JSON; private ones may be a compressed pickle of that text."""
    value = row.get(column) or "[]"
    try:
        tests = (
            json.loads(value) if isinstance(value, str) and value[:1] in "[ " else _unpacked(value)
        )
    except (ValueError, TypeError, EOFError, zlib.error, pickle.UnpicklingError) as error:
        raise BadRow(f"{column} cannot be read ({error})") from error
    if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
        raise BadRow(f"{column} is no list of tests")
    return tests


def _unpacked(value: str) -> Any:
    try:
        packed = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"neither JSON nor base64: {error}") from error
    data = (inflater := zlib.decompressobj()).decompress(packed, _MAX_TEST_BYTES)
    if not inflater.eof:
        raise ValueError(f"cut off, or more than {_MAX_TEST_BYTES} bytes")
    return json.loads(_TextOnly(io.BytesIO(data)).load())


class _TextOnly(pickle.Unpickler):
    """Loads texts and no objects: nothing in a file is executed."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds an object ({module}.{name}), not a text")


def _text(values: Any, name: str) -> str:
    value = values.get(name) if isinstance(values, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"no text in {name!r}")
    return value


TASK = ProblemTask(
    name="live_code_bench",
    title="LiveCodeBench",
    license="CC (as its authors say), the contests' own",
    kind="generative",
    grader="code",
    hub=None,
    problem=problem,
)
