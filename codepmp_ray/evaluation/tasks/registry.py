"""All tasks by name."""

from __future__ import annotations

from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.tasks import (
    gsm8k,
    humaneval,
    live_code_bench,
    math,
    mbpp,
    reasoning_gym,
)
from codepmp_ray.evaluation.tasks.base import PreferenceTask, ProblemTask
from codepmp_ray.evaluation.tasks.choices import CHOICE_TASKS
from codepmp_ray.evaluation.tasks.preference_sets import PREFERENCE_TASKS

PROBLEM_TASKS: dict[str, ProblemTask] = {
    task.name: task
    for task in (
        gsm8k.TASK,
        math.MATH,
        math.MATH_500,
        *CHOICE_TASKS,
        humaneval.TASK,
        humaneval.PLUS,
        mbpp.TASK,
        mbpp.PLUS,
        live_code_bench.TASK,
        reasoning_gym.TASK,
    )
}


def problem_task(name: str) -> ProblemTask:
    """Raises ConfigError that lists the names there are."""
    if name in PROBLEM_TASKS:
        return PROBLEM_TASKS[name]
    raise ConfigError(
        f"There is no task {name!r} with problems.", f"Choose from {', '.join(PROBLEM_TASKS)}."
    )


def preference_task(name: str) -> PreferenceTask:
    """Raises ConfigError that lists the names there are."""
    if name in PREFERENCE_TASKS:
        return PREFERENCE_TASKS[name]
    raise ConfigError(
        f"There is no task {name!r} with pairs.", f"Choose from {', '.join(PREFERENCE_TASKS)}."
    )
