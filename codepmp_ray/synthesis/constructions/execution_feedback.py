"""Execution feedback (the paper's future work): tests decide which answer is the better one.

The strong model writes tests for its description, both models answer, and the pair is kept only
where exactly one answer passes. So that one test fits both answers, the snippet's signature is part
of the prompt; only Python functions outside classes have one that can be called by itself.
"""

from __future__ import annotations

import ast

from codepmp_ray.config.engines import Role
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.constructions.base import Hop
from codepmp_ray.synthesis.constructions.strong_weak import StrongWeak
from codepmp_ray.synthesis.execution import RESERVED_NAMES
from codepmp_ray.synthesis.prompts import answer_prompt, tests_prompt, with_signature
from codepmp_ray.synthesis.python_syntax import parse_python, unparse_arguments
from codepmp_ray.synthesis.rows import Row, refuse


class ExecutionFeedback(StrongWeak):
    def hops(self) -> dict[Hop, Role]:
        return {
            "describe": self.config.describer,
            "tests": "strong",
            "chosen": "strong",
            "rejected": "weak",
        }

    def prepare(self, row: Row) -> Row:
        if signature(row) is None:
            detail = f"{row['language']} {row['kind']} {row['name']}: no plain Python function"
            return refuse(row, RejectReason.NOT_EXECUTED, detail)
        return row

    def prompt(self, row: Row) -> str:
        task = with_signature(row["description"], signature(row) or "")
        return answer_prompt(task, row["language"], self.config.prompts)

    def question(self, hop: Hop, row: Row) -> str:
        if hop == "tests":
            task = with_signature(row["description"], signature(row) or "")
            return tests_prompt(task, self.config.prompts)
        return super().question(hop, row)


def signature(row: Row) -> str | None:
    """`def name(arguments)` of a snippet that is a plain Python function, otherwise None."""
    if row["language"] != "python" or row["kind"] != "function" or row["name"] in RESERVED_NAMES:
        return None
    tree = parse_python(row["code"])
    nodes = tree.body if tree else []
    # A method was taken out of its class: its name has a dot.
    if len(nodes) == 1 and isinstance(nodes[0], ast.FunctionDef) and nodes[0].name == row["name"]:
        arguments = unparse_arguments(nodes[0])
        return None if arguments is None else f"def {nodes[0].name}({arguments})"
    return None
