"""How fast GSM8K answers are graded, by one process and by one on each core.

    python -m benchmarks.evaluation_grading path/to/pool.jsonl.zst

The pool is a file as `candidates.pool_path` names it, with a question and a reference in each row;
the goals are for 66,631 answers to 1,319 questions. Without a path, synthetic answers of that shape
are graded, and the result says so. Both sides start with processes that have loaded the verifier
and remember no verdicts; how long that start takes is a result of its own.
"""

from __future__ import annotations

import os
import random
import time

from benchmarks._results import options, series_result, write_results
from codepmp_ray.config.evaluation import GraderConfig
from codepmp_ray.evaluation.graders import Reference
from codepmp_ray.evaluation.graders.pool import GradingPool, Job
from codepmp_ray.evaluation.pool_files import load_pool
from codepmp_ray.evaluation.tasks.base import TextProblem

_NUM_QUESTIONS, _NUM_ANSWERS = 1_319, 66_631
_STEP = "She has {a} of them and gets {b} more, which makes {a} + {b} = <<{a}+{b}={c}>>{c}.\n"
_WARM_UP: Job = ("number", Reference("-1"), "The answer is -2")


def pool_jobs(path: str) -> tuple[list[Job], list[bool | None]]:
    """Every answer of the file, by question, and its label."""
    pool = load_pool("gsm8k", path, None)
    jobs: list[Job] = []
    labels: list[bool | None] = []
    for question in pool:
        assert isinstance(question.problem, TextProblem)
        for answer in question.answers:
            jobs.append(("number", question.problem.reference, answer.text))
            labels.append(answer.label)
    return jobs, labels


def synthetic_jobs() -> tuple[list[Job], list[bool | None]]:
    """As many answers as the pool has, of about its length, 82 % right, with few wrong values."""
    generator = random.Random(0)
    jobs: list[Job] = []
    labels: list[bool | None] = []
    for index in range(_NUM_ANSWERS):
        if index % 51 == 0:
            right = generator.randrange(2, 5_000)
            wrong = [right + generator.choice((-2, -1, 1, 10)) * i for i in range(1, 6)]
        is_right = generator.random() < 0.82
        steps = [generator.randrange(100) for _ in range(8)]
        text = "".join(_STEP.format(a=a, b=b, c=a + b) for a, b in zip(steps, steps, strict=True))
        number = right if is_right else generator.choice(wrong)
        jobs.append(("number", Reference(str(right)), f"{text}The answer is {number}"))
        labels.append(is_right)
    return jobs, labels


def time_grading(jobs: list[Job], num_processes: int) -> tuple[float, float, list[bool | None]]:
    """Seconds to start, seconds to grade, and what the verdicts were."""
    pool = GradingPool(GraderConfig(num_parallel=num_processes))
    try:
        start_s = time.perf_counter()
        # Enough parts for every process to be started and busy.
        pool.grade([_WARM_UP] * 64 * 8 * num_processes)
        begin_s = time.perf_counter()
        verdicts = pool.grade(jobs)
        end_s = time.perf_counter()
    finally:
        pool.close()
    return begin_s - start_s, end_s - begin_s, [verdict.passed for verdict in verdicts]


def main() -> None:
    parser = options(__doc__, repeats=3)
    parser.add_argument("pool", nargs="?", help="file of answers; without it they are synthetic")
    parser.add_argument("--answers", type=int, help="grade only the first ones")
    arguments = parser.parse_args()
    jobs, labels = pool_jobs(arguments.pool) if arguments.pool else synthetic_jobs()
    jobs, labels = jobs[: arguments.answers], labels[: arguments.answers]
    cores = len(os.sched_getaffinity(0))
    times: dict[int, list[float]] = {1: [], cores: []}
    starts: list[float] = []
    agreement: list[float] = []
    for _ in range(arguments.repeats):
        for num_processes, series in times.items():  # in turn: what else runs slows both
            start_s, grade_s, passed = time_grading(jobs, num_processes)
            series.append(grade_s)
            starts.append(start_s)
            pairs = [pair for pair in zip(passed, labels, strict=True) if pair[1] is not None]
            agreement.append(sum(a == b for a, b in pairs) / max(1, len(pairs)))
    context = {
        "answers": f"{len(jobs)} " + ("of a pool" if arguments.pool else "synthetic"),
        "processes": cores,
    }
    if arguments.pool:
        # A path of this machine says nothing to others.
        context["command"] = "python -m benchmarks.evaluation_grading POOL"
    speedups = [one / many for one, many in zip(times[1], times[cores], strict=True)]
    write_results(
        "evaluation_grading",
        [
            series_result("grading_s", times[cores], "s", "< 60 on 2 cores", **context),
            series_result("grading_one_process_s", times[1], "s", **context),
            series_result("grading_speedup", speedups, "x", ">= 1.8 on 2 cores", **context),
            series_result("grading_start_s", starts, "s", **context),
            series_result(
                "agreement_with_labels", agreement, "share of answers", digits=5, **context
            ),
        ],
    )


if __name__ == "__main__":
    main()
