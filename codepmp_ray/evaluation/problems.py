"""Programming problems: what a model is asked, what its answer is tested with, and their split.

Where the problems come from is the duty of one module per task (`humaneval`, `mbpp`). None of them
uses its benchmark's own executor, which runs generated code without isolation: executing is
`evaluation.sandbox`'s duty.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.records import stable_id

Split = Literal["train", "eval"]
INSTRUCTION = (
    "Complete the following Python function. "
    "Answer with the whole function in one Python code block.\n\n"
)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        problem_id: for example "HumanEval/32".
        stub: imports, helpers, signature and docstring of the function to write.
        canonical_program: the whole program as the benchmark's authors wrote it.
        test: source that defines `check(candidate)`, which raises unless the answer is right.
        entry_point: name of the function to write.
    """

    problem_id: str
    stub: str
    canonical_program: str
    test: str
    entry_point: str

    @property
    def prompt(self) -> str:
        """What the generator is asked and, unchanged, what the reward model sees."""
        return INSTRUCTION + as_code_block(self.stub)

    @property
    def canonical_answer(self) -> str:
        """The canonical solution in the form of a model's answer."""
        return as_code_block(self.canonical_program)

    @property
    def prelude(self) -> str:
        """The stub's imports and helper functions, which answers rarely repeat."""
        for node in ast.parse(self.stub).body:
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point:
                return "\n".join(self.stub.splitlines()[: node.lineno - 1]) + "\n"
        raise InputError(f"{self.problem_id}: the stub does not define {self.entry_point}.")


def as_code_block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def load_problems(task: str, path: str | None = None) -> dict[str, Problem]:
    """All problems of a task by id, in its order; read once per process.

    Args:
        path: a local file to read instead of what the task reads by itself.

    Raises InputError when they cannot be read.
    """
    return _load(task, path)


@cache
def _load(task: str, path: str | None) -> dict[str, Problem]:
    from codepmp_ray.evaluation.humaneval import read_humaneval
    from codepmp_ray.evaluation.mbpp import read_mbpp

    readers: dict[str, Callable[[str | None], Iterable[Problem]]] = {
        "humaneval": read_humaneval,
        "mbpp": read_mbpp,
    }
    problems = {problem.problem_id: problem for problem in readers[task](path)}
    if not problems:
        raise InputError(f"The task {task} has no problems in {path or 'its own source'}.")
    return problems


def split_problems(config: CandidatesConfig) -> dict[Split, list[Problem]]:
    """Disjoint training and evaluation problems.

    Problems are ordered by a hash of (split_seed, id); the first `num_train_problems` train, the
    next `num_eval_problems` evaluate. So a larger evaluation part never moves a training problem.

    Raises ConfigError when the two parts together exceed the problems there are.
    """
    problems = load_problems(config.task, config.task_path)
    asked = config.num_train_problems + config.num_eval_problems
    if asked > len(problems):
        raise ConfigError(
            f"candidates: num_train_problems={config.num_train_problems} + num_eval_problems="
            f"{config.num_eval_problems} = {asked}, but {config.task} has "
            f"{len(problems)} problems.",
            f"Lower one of them by {asked - len(problems)}.",
        )
    seed = str(config.split_seed)
    order = sorted(problems.values(), key=lambda p: stable_id(seed, p.problem_id))
    train = order[: config.num_train_problems]
    return {"train": train, "eval": order[config.num_train_problems : asked]}


def problems_by_id(config: CandidatesConfig, problem_ids: Iterable[str]) -> dict[str, Problem]:
    """The named problems. Raises InputError that names an unknown one."""
    known = load_problems(config.task, config.task_path)
    wanted = list(dict.fromkeys(problem_ids))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"The candidates name the problem {unknown[0]!r}, which {config.task} does not have.",
            "Sample the candidates again with this version.",
        )
    return {name: known[name] for name in wanted}
