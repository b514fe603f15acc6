"""Programming problems: a function, a method or a whole program to write, and tests of it.

No task uses its benchmark's own executor, which runs generated code without isolation: executing is
`evaluation.sandbox`'s duty.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Literal

from codepmp_ray.errors import InputError

INSTRUCTION = (
    "Complete the following Python function. "
    "Answer with the whole function in one Python code block.\n\n"
)


@dataclass(frozen=True)
class CodeProblem:
    """One problem.

    Attributes:
        problem_id: for example "HumanEval/32".
        stub: imports, helpers, signature and docstring of the function to write.
        canonical_program: the whole program as the benchmark's authors wrote it.
        test: source that defines `check(candidate)`, which raises unless the answer is right.
        entry_point: name of the function to write.
        form: what is to be written; `evaluation.contest_answers` makes a function called
            `entry_point` of a method (`method` of the class Solution) and of a program (which
            takes its input and gives its output).
        asked: what the generator is asked, where that is not to complete the stub.
    """

    problem_id: str
    stub: str
    canonical_program: str
    test: str
    entry_point: str
    form: Literal["function", "method", "program"] = "function"
    method: str = ""
    asked: str = ""

    @property
    def prompt(self) -> str:
        """What the generator is asked and, unchanged, what the reward model sees."""
        return self.asked or INSTRUCTION + as_code_block(self.stub)

    @property
    def canonical_answer(self) -> str:
        """The canonical solution in the form of a model's answer; "" where there is none."""
        return as_code_block(self.canonical_program) if self.canonical_program else ""

    @property
    def prelude(self) -> str:
        """The stub's imports and helper functions, which answers rarely repeat."""
        for node in ast.parse(self.stub).body:
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point:
                return "\n".join(self.stub.splitlines()[: node.lineno - 1]) + "\n"
        raise InputError(f"{self.problem_id}: the stub does not define {self.entry_point}.")


def as_code_block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"
