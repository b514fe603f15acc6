"""All tasks by name."""

from __future__ import annotations

from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.tasks import (
    code_ultrafeedback,
    gsm8k,
    hh_rlhf,
    humaneval,
    logiqa2,
    math,
    math_shepherd,
    mbpp,
    reasoning_gym,
    reclor,
    reward_bench,
    rm_bench,
)
from codepmp_ray.evaluation.tasks.base import PreferenceTask, ProblemTask

PROBLEM_TASKS: dict[str, ProblemTask] = {
    task.name: task
    for task in (
        gsm8k.TASK,
        math.MATH,
        math.MATH_500,
        reclor.TASK,
        logiqa2.TASK,
        humaneval.TASK,
        mbpp.TASK,
        reasoning_gym.TASK,
    )
}
PREFERENCE_TASKS: dict[str, PreferenceTask] = {
    task.name: task
    for task in (
        math_shepherd.PAIRS,
        reclor.PAIRS,
        logiqa2.PAIRS,
        code_ultrafeedback.PAIRS,
        hh_rlhf.HELPFUL,
        hh_rlhf.HARMLESS,
        reward_bench.TASK,
        rm_bench.TASK,
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
