"""Problems of a task: read once per process, split into training and evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Literal

from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.pool_files import load_pool
from codepmp_ray.evaluation.tasks import reasoning_gym
from codepmp_ray.evaluation.tasks.base import Problem
from codepmp_ray.evaluation.tasks.loading import read_problems
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.records import stable_id

Split = Literal["train", "eval"]


@cache
def load_problems(task: str, path: str | None = None) -> dict[str, Problem]:
    """All problems of a task by id, in its order; read once per process.

    Args:
        path: a local file to read instead of what the task reads by itself.

    Raises InputError when they cannot be read.
    """
    return {problem.problem_id: problem for problem in read_problems(problem_task(task), path)}


def configured_problems(config: CandidatesConfig) -> dict[str, Problem]:
    """The problems that candidates answer: the task's, or those that a file of pools brings.

    Raises InputError when they cannot be read, ConfigError for kinds that cannot be made.
    """
    if config.pool_path is not None:
        pool = load_pool(config.task, config.pool_path, config.task_path)
        return {q.name: q.problem for q in pool if q.problem is not None}
    if config.kinds:
        return _made_problems(json.dumps(config.kinds, sort_keys=True), config.split_seed)
    return load_problems(config.task, config.task_path)


@cache
def _made_problems(kinds: str, seed: int) -> dict[str, Problem]:
    rows = reasoning_gym.rows(json.loads(kinds), seed)
    problems = [reasoning_gym.problem(row, index) for index, row in enumerate(rows)]
    return {problem.problem_id: problem for problem in problems}


def split_problems(config: CandidatesConfig) -> dict[Split, list[Problem]]:
    """Disjoint training and evaluation problems.

    Problems are ordered by a hash of (split_seed, id); the first `num_train_problems` train, the
    next `num_eval_problems` evaluate. So a larger evaluation part never moves a training problem.

    Raises ConfigError when the two parts together exceed the problems there are.
    """
    problems = configured_problems(config)
    asked = config.num_train_problems + config.num_eval_problems
    if asked > len(problems):
        source = config.pool_path or config.task
        raise ConfigError(
            f"candidates: num_train_problems={config.num_train_problems} + num_eval_problems="
            f"{config.num_eval_problems} = {asked}, but {source} has "
            f"{len(problems)} problems.",
            f"Lower one of them by {asked - len(problems)}.",
        )
    seed = str(config.split_seed)
    order = sorted(problems.values(), key=lambda p: stable_id(seed, p.problem_id))
    train = order[: config.num_train_problems]
    return {"train": train, "eval": order[config.num_train_problems : asked]}


def require_problems(config: CandidatesConfig) -> None:
    """Raise what `split_problems` would, where it costs no download: before a run begins."""
    if config.kinds or config.pool_path or config.task_path or problem_task(config.task).packaged:
        split_problems(config)


def problems_by_id(config: CandidatesConfig, problem_ids: Iterable[str]) -> dict[str, Problem]:
    """The named problems. Raises InputError that names an unknown one."""
    known = configured_problems(config)
    wanted = list(dict.fromkeys(problem_ids))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"The candidates name the problem {unknown[0]!r}, which {config.task} does not have.",
            "Sample the candidates again with this version.",
        )
    return {name: known[name] for name in wanted}
