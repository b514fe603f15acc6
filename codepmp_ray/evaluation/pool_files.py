"""Candidate pools that somebody else sampled: a file of answers, with the problems they answer.

Where every row brings its question and a reference, the file is all that is needed (number and
LaTeX graders); otherwise the task's own problems are read, and rows are matched with them by id or
by the question's text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePath

from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.graders import Reference
from codepmp_ray.evaluation.graders.final_answer import last_box
from codepmp_ray.evaluation.graders.numbers import find_number
from codepmp_ray.evaluation.pool_rows import Answer, PoolRow, read_pool_row
from codepmp_ray.evaluation.tasks.base import Problem, ProblemTask, TextProblem
from codepmp_ray.evaluation.tasks.loading import read_problems
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.io.rows import read_whole
from codepmp_ray.preference.sources.rows import Reject, Unusable
from codepmp_ray.reject_reasons import RejectReason


@dataclass
class FilePool:
    """A file of pools.

    Attributes:
        problems: those that have answers, in the order of the file.
        answers: of each problem, by id; never empty.
        rejects: rows and answers that cannot be used; `index` is the row's number from 0.
    """

    problems: dict[str, Problem] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)

    @property
    def reject_counts(self) -> dict[str, int]:
        return dict(sorted(Counter(str(reject.reason) for reject in self.rejects).items()))


def pool_problems(config: CandidatesConfig) -> dict[str, Problem]:
    """The problems of `config.pool_path`. Raises InputError."""
    return load_pool(config.task, config.pool_path or "", config.task_path).problems


@cache
def load_pool(task_name: str, path: str, task_path: str | None) -> FilePool:
    """A file of pools, read once per process.

    Raises InputError when it cannot be read or none of its rows gives an answer to a problem.
    """
    task = problem_task(task_name)
    numbered: list[tuple[int, PoolRow]] = []
    pool = FilePool()
    for index, row in enumerate(read_whole("candidates.pool_path", path)):
        try:
            found = read_pool_row(row)
        except Unusable as error:
            pool.rejects.append(Reject(index, error.reason, error.detail))
            continue
        pool.rejects += [Reject(index, item.reason, item.detail) for item in found.problems]
        if found.answers:
            numbered.append((index, found))
    rows = [row for _, row in numbered]
    of_text = task.grader in ("number", "latex")
    if of_text and all(row.question and row.reference for row in rows):
        _own_problems(pool, task, numbered)
    else:
        _task_problems(pool, task, numbered, task_path)
    if not pool.problems:
        first = f" (first: row {pool.rejects[0].index + 1}, {pool.rejects[0].detail})"
        raise InputError(
            f"No row of {path} gives answers to a problem of {task.title}: "
            f"{len(pool.rejects)} were rejected{first if pool.rejects else ''}.",
            "docs/evaluation.md says what a row of candidates.pool_path holds.",
        )
    return pool


def file_label(path: str) -> str:
    """The file's name, for rows' ids."""
    return PurePath(path).name


def _own_problems(pool: FilePool, task: ProblemTask, rows: Iterable[tuple[int, PoolRow]]) -> None:
    """Problems of the file's own questions and references."""
    name_of: dict[str, str] = {}  # of a question: what it was called first
    for index, row in rows:
        question = row.question or ""
        name = name_of.get(question)
        if name is None:
            name = f"{task.title}/{index}" if row.problem_id is None else row.problem_id
            name = f"{task.title}/{name}" if name.isdigit() else name
        answer = _final(task, row.reference or "")
        known = pool.problems.get(name)
        if answer is None:
            detail = f"the reference {row.reference!r:.80} holds no answer"
            pool.rejects.append(Reject(index, RejectReason.BAD_LABEL, detail))
        elif isinstance(known, TextProblem) and (
            known.prompt != question or known.reference.answer != answer
        ):
            detail = f"{name!r} has another question or reference in an earlier row"
            pool.rejects.append(Reject(index, RejectReason.BAD_LABEL, detail))
        else:
            name_of[question] = name
            problem = TextProblem(name, question, row.reference or "", Reference(answer))
            pool.problems.setdefault(name, problem)
            pool.answers.setdefault(name, []).extend(row.answers)


def _final(task: ProblemTask, reference: str) -> str | None:
    if task.grader == "number":
        return find_number(reference)
    return (last_box(reference) or reference).strip() or None


def _task_problems(
    pool: FilePool,
    task: ProblemTask,
    rows: Iterable[tuple[int, PoolRow]],
    task_path: str | None,
) -> None:
    """Rows matched with the task's own problems."""
    known = {problem.problem_id: problem for problem in read_problems(task, task_path)}
    by_prompt = {problem.prompt: name for name, problem in known.items()}
    for index, row in rows:
        name = row.problem_id
        if name is not None and name not in known and f"{task.title}/{name}" in known:
            name = f"{task.title}/{name}"
        if name not in known:
            name = by_prompt.get(row.question or "")
        if name is None:
            detail = f"{task.title} has neither the id {row.problem_id!r} nor this question"
            pool.rejects.append(Reject(index, RejectReason.UNKNOWN_PROBLEM, detail))
            continue
        pool.problems[name] = known[name]
        pool.answers.setdefault(name, []).extend(row.answers)
