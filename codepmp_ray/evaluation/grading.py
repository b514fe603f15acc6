"""Candidates -> grades: code is executed against its tests, other answers are compared."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from codepmp_ray.config.evaluation import CandidatesConfig, GraderConfig, SandboxConfig
from codepmp_ray.evaluation.code_extraction import build_program, normalised_code
from codepmp_ray.evaluation.contest_answers import build_contest_program
from codepmp_ray.evaluation.graders import Verdict
from codepmp_ray.evaluation.graders.pool import Job, shared_pool
from codepmp_ray.evaluation.problems import problems_by_id
from codepmp_ray.evaluation.sandbox import Execution, Sandbox, TestJob
from codepmp_ray.evaluation.tasks.base import Problem, TextProblem
from codepmp_ray.evaluation.tasks.code import CodeProblem
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.records import Outcome, stable_id

Row = dict[str, Any]
_FORGEABLE = "test and answer in one process, so that the verdict could be forged"


def grade_candidates(
    candidates: Sequence[Row],
    task: CandidatesConfig,
    sandbox: SandboxConfig,
    grader: GraderConfig = GraderConfig(),  # noqa: B008 - frozen
) -> list[Row]:
    """GRADE rows of CANDIDATE rows, in their order.

    Of code, each problem's own solution runs first, where it has one; where that fails, all answers
    to the problem are "not_gradable" and their `passed` is null. Raises InputError for a problem
    that the task lacks, SandboxUnavailable where code cannot be executed.
    """
    problems = problems_by_id(task, (row["problem_id"] for row in candidates))
    asked = [problems[row["problem_id"]] for row in candidates]
    texts = [row["completion"] for row in candidates]
    name = problem_task(task.task).grader
    if name == "code":
        verdicts = _execute(cast(list[CodeProblem], asked), texts, sandbox)
    else:
        jobs: list[Job] = [
            (name, cast(TextProblem, problem).reference, text)
            for problem, text in zip(asked, texts, strict=True)
        ]
        verdicts = shared_pool(grader).grade(jobs)
    return [
        _grade(row, problem, verdict)
        for row, problem, verdict in zip(candidates, asked, verdicts, strict=True)
    ]


def grade_counts(grades: Sequence[Row]) -> dict[str, int]:
    """Number of grades by outcome."""
    return dict(sorted(Counter(row["outcome"] for row in grades).items()))


def label_agreement(grades: Iterable[Row], labels: dict[str, bool | None]) -> dict[str, int]:
    """How grades compare with the labels that a file of pools brought: counts.

    `labels` by candidate; what has no label or no grade is not compared.
    """
    counts = Counter(num_labelled=0, num_agreeing=0, num_only_label=0, num_only_grade=0)
    for row in grades:
        label, passed = labels.get(row["candidate_id"]), row["passed"]
        if label is None or passed is None:
            continue
        counts["num_labelled"] += 1
        if label == passed:
            counts["num_agreeing"] += 1
        else:
            counts["num_only_label" if label else "num_only_grade"] += 1
    return dict(counts)


def _grade(row: Row, problem: Problem, verdict: Verdict) -> Row:
    return {
        "candidate_id": row["candidate_id"],
        "problem_id": problem.problem_id,
        "passed": verdict.passed,
        "outcome": str(verdict.outcome),
        # Models word their answers themselves; half a surrogate pair could not be stored.
        "detail": _storable(verdict.detail),
        "answer": None if verdict.answer is None else _storable(verdict.answer),
        "duration_s": verdict.duration_s,
    }


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _execute(
    problems: Sequence[CodeProblem], texts: Sequence[str], config: SandboxConfig
) -> list[Verdict]:
    executor = Sandbox.detect(config)
    programs = [
        (build_program if problem.form == "function" else build_contest_program)(problem, text)
        for problem, text in zip(problems, texts, strict=True)
    ]
    of_id = {problem.problem_id: problem for problem in problems}

    def run(problem: CodeProblem, program: str) -> Execution:
        shared = problem.problem_id in config.shared_process
        job = TestJob(program, problem.entry_point, problem.stub, problem.test, shared)
        return executor.run(job)

    def obstacle(problem: CodeProblem) -> str:
        """Why the problem cannot be graded here; again, since a busy machine may be slow once."""
        if not problem.canonical_program:
            return ""
        own = run(problem, problem.canonical_program)
        if own.outcome != "passed":
            own = run(problem, problem.canonical_program)
        ends = f"its own solution ends as {own.outcome}: {own.detail}"
        return "" if own.outcome == "passed" else ends

    def grade(problem: CodeProblem, program: str | None) -> Verdict:
        if why := obstacles[problem.problem_id]:
            return Verdict(None, Outcome.NOT_GRADABLE, why)
        if program is None:
            wanted = problem.method or problem.entry_point
            is_program = problem.form == "program"
            detail = "no valid Python " + (
                "program" if is_program else f"code that defines {wanted}"
            )
            return Verdict(False, Outcome.NO_CODE, detail)
        code = normalised_code(program)
        answer = None if code is None else stable_id(code)
        done = run(problem, program)
        passed = done.outcome == "passed"
        is_shared = passed and (config.endpoint or problem.problem_id in config.shared_process)
        detail = _FORGEABLE if is_shared else done.detail
        return Verdict(passed, Outcome(done.outcome), detail, answer, done.duration_s)

    # Threads only wait: each execution is a process of its own.
    with ThreadPoolExecutor(config.num_parallel or os.cpu_count() or 1) as pool:
        obstacles = dict(zip(of_id, pool.map(obstacle, of_id.values()), strict=True))
        return list(pool.map(grade, problems, programs))
