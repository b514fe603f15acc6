"""MBPP (Austin et al. 2021, CC BY 4.0): from the hub, or a local file of either known schema.

The original rows (`task_id, text, code, test_list`; `prompt` instead of `text` in the sanitized
part) ask in one sentence and test by assert statements that name the function. They are brought
into HumanEval's form, as mxeval does: a stub with the canonical signature, the sentence and the
asserts' first line as an example. Rows that are in that form already are taken as they are.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from typing import Any

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.humaneval import COLUMNS, problem_of_row
from codepmp_ray.evaluation.problems import Problem
from codepmp_ray.evaluation.task_files import read_hub_rows, read_task_rows

HUB_ID = "google-research-datasets/mbpp"


def read_mbpp(path: str | None) -> Iterator[Problem]:
    """Every problem of the file, or of all parts of the hub's dataset.

    Raises InputError when they cannot be read.
    """
    rows = read_hub_rows("mbpp", HUB_ID, "full") if path is None else read_task_rows("mbpp", path)
    for row in rows:
        yield problem_of_row(row, "mbpp") if "test_list" not in row else _convert(row)


def _convert(row: dict[str, Any]) -> Problem:
    try:
        code, tests = row["code"].replace("\r\n", "\n"), list(row["test_list"])
        sentence = row.get("text") or row["prompt"]
        entry_point, signature = _tested_function(code, tests)
    except (KeyError, TypeError, AttributeError, SyntaxError, StopIteration) as error:
        raise InputError(
            f"The MBPP problem {str(row.get('task_id'))[:40]!r} is not readable ({error!r}).",
            "A row needs task_id, text (or prompt), code and test_list; in the other form "
            f"{', '.join(COLUMNS)}.",
        ) from error
    lines = [*textwrap.wrap(sentence.strip(), 88), "", f"Example: {tests[0].strip()}"]
    docstring = textwrap.indent("\n".join(lines).replace("\\", "\\\\"), "    ")
    setup = "\n".join(filter(None, [row.get("test_setup_code"), *row.get("test_imports", [])]))
    body = "\n".join([setup, f"{entry_point} = candidate", *tests])
    return Problem(
        problem_id=f"MBPP/{row['task_id']}",
        stub=f'{signature}\n    """\n{docstring}\n    """\n',
        canonical_program=code,
        test=f"def check(candidate):\n{textwrap.indent(body.strip(), '    ')}\n",
        entry_point=entry_point,
    )


def _tested_function(code: str, tests: list[str]) -> tuple[str, str]:
    """Name and `def` line of the function in `code` that the tests call.

    Raises StopIteration when they call none.
    """
    functions = {
        node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)
    }
    called = [
        node.func.id
        for test in tests
        for node in ast.walk(ast.parse(test))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    name = next(name for name in called if name in functions)
    return name, f"def {name}({ast.unparse(functions[name].args)}):"
