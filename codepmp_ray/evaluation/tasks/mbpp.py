"""MBPP (Austin et al. 2021, CC BY 4.0): from the hub, or a local file of either known schema.

The original rows (`task_id, text, code, test_list`; `prompt` instead of `text` in the sanitized
part) ask in one sentence and test by assert statements that name the function. They are brought
into HumanEval's form, as mxeval does: a stub with the canonical signature, the sentence and the
asserts' first line as an example. Rows that are in that form already are taken as they are. Rows of
MBPP+ have more tests in `test`, which are run in place of the asserts.
"""

from __future__ import annotations

import ast
import textwrap
from dataclasses import replace

from codepmp_ray.evaluation.tasks.base import BadRow, HubSet, ProblemTask, Row
from codepmp_ray.evaluation.tasks.code import CodeProblem
from codepmp_ray.evaluation.tasks.humaneval import code_problem


def problem(row: Row, index: int) -> CodeProblem:
    """A row of either schema. Raises BadRow."""
    return _convert(row) if "test_list" in row else code_problem(row, index)


def _convert(row: Row) -> CodeProblem:
    try:
        code, tests = row["code"].replace("\r\n", "\n"), list(row["test_list"])
        sentence = row.get("text") or row["prompt"]
        entry_point, signature = _tested_function(code, tests)
    except (KeyError, TypeError, AttributeError, SyntaxError, StopIteration) as error:
        raise BadRow(f"task_id, text (or prompt), code or test_list: {error!r}") from error
    lines = [*textwrap.wrap(sentence.strip(), 88), "", f"Example: {tests[0].strip()}"]
    docstring = textwrap.indent("\n".join(lines).replace("\\", "\\\\"), "    ")
    setup = "\n".join(filter(None, [row.get("test_setup_code"), *row.get("test_imports", [])]))
    own = row.get("test")
    made = [own] if isinstance(own, str) and own.strip() else tests
    body = "\n".join([setup, f"{entry_point} = candidate", *made])
    return CodeProblem(
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


TASK = ProblemTask(
    name="mbpp",
    title="MBPP",
    license="CC BY 4.0",
    kind="generative",
    grader="code",
    hub=HubSet("google-research-datasets/mbpp", "train+test+validation+prompt", "full"),
    problem=problem,
)
PLUS = replace(
    TASK,
    name="mbpp_plus",
    title="MBPP+",
    license="Apache-2.0",
    hub=HubSet("evalplus/mbppplus", "test"),
)
