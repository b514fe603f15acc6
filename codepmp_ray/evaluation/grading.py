"""Sampled answers -> grades: extract the code, execute it against the problem's test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from codepmp_ray.config.evaluation import CandidatesConfig, SandboxConfig
from codepmp_ray.errors import SandboxUnavailable
from codepmp_ray.evaluation.code_extraction import build_program
from codepmp_ray.evaluation.problems import Problem, problems_by_id
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob

Row = dict[str, Any]
NOT_EXECUTED = "not_executed"


def grade_candidates(
    candidates: Sequence[Row], task: CandidatesConfig, config: SandboxConfig
) -> list[Row]:
    """GRADE rows of CANDIDATE rows, in their order.

    Where no sandbox can be had nothing is executed: the outcome is "not_executed", `passed` is null
    and the detail says what to install. Raises InputError for a problem that the task lacks.
    """
    problems = problems_by_id(task, (row["problem_id"] for row in candidates))
    programs = [build_program(problems[row["problem_id"]], row["completion"]) for row in candidates]
    sandbox: Sandbox | None = None
    reason = ""
    try:
        sandbox = Sandbox.detect(config)
    except SandboxUnavailable as error:
        reason = str(error)

    def grade(row: Row, program: str | None) -> Row:
        problem = problems[row["problem_id"]]
        return {
            "candidate_id": row["candidate_id"],
            "problem_id": row["problem_id"],
            **_grade(sandbox, reason, problem, program),
        }

    # Threads only wait: each execution is a process of its own.
    with ThreadPoolExecutor(config.num_parallel or os.cpu_count() or 1) as pool:
        return list(pool.map(grade, candidates, programs))


def grade_counts(grades: Sequence[Row]) -> dict[str, int]:
    """Number of grades by outcome."""
    return dict(sorted(Counter(row["outcome"] for row in grades).items()))


def _grade(sandbox: Sandbox | None, reason: str, problem: Problem, program: str | None) -> Row:
    if program is None:
        detail = f"no valid Python code that defines {problem.entry_point}"
        return {"passed": False, "outcome": "no_code", "detail": detail, "duration_s": 0.0}
    if sandbox is None:
        return {"passed": None, "outcome": NOT_EXECUTED, "detail": reason, "duration_s": 0.0}
    job = TestJob(program, problem.entry_point, problem.stub, problem.test)
    execution = sandbox.run(job)
    return {
        "passed": execution.outcome == "passed",
        "outcome": execution.outcome,
        "detail": execution.detail,
        "duration_s": execution.duration_s,
    }
