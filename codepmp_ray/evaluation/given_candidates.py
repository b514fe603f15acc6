"""Candidates that need no generator: the options of multiple choice, and pools read from a file."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.evaluation.pool_files import file_label, load_pool
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.evaluation.problems import split_problems
from codepmp_ray.evaluation.tasks.base import Problem, TextProblem
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import CANDIDATE, REJECTED, stable_id, table_from_rows

Row = dict[str, Any]
OPTIONS = "options"  # the `model` of candidates that are a question's own options


def are_given(config: CandidatesConfig) -> bool:
    """Whether the candidates of this recipe are there already."""
    return config.pool_path is not None or problem_task(config.task).kind == "choice"


def write_given_candidates(ledger: ShardLedger, config: CandidatesConfig) -> dict[str, int]:
    """Commit the candidates that are not committed yet; returns counts for the summary.

    The first shard also takes what the file's rows were rejected for.
    """
    problems = [
        (split, problem) for split, part in split_problems(config).items() for problem in part
    ]
    size = config.problems_per_shard
    shards = [problems[i : i + size] for i in range(0, len(problems), size)]
    rejected = _rejected(config)
    for shard_id in ledger.missing_ids(len(shards)):
        rows = [row for split, problem in shards[shard_id] for row in _rows(config, split, problem)]
        left = rejected if shard_id == 0 else rejected.slice(0, 0)
        tables = {"candidates": table_from_rows(rows, CANDIDATE), "rejected": left}
        ledger.commit(shard_id, len(rows) + left.num_rows, tables)
    num_unused = sum(
        max(0, len(_answers(config, problem)) - getattr(config, f"num_{split}_samples"))
        for split, problem in problems
        if config.pool_path is not None
    )
    return {"num_shards": len(shards), "num_unused": num_unused, "num_rejected": rejected.num_rows}


def _rows(config: CandidatesConfig, split: str, problem: Problem) -> list[Row]:
    limit = None if config.pool_path is None else getattr(config, f"num_{split}_samples")
    return [
        {
            "candidate_id": stable_id(problem.problem_id, split, str(index)),
            "problem_id": problem.problem_id,
            "split": split,
            "sample_index": index,
            "prompt": problem.prompt,
            "completion": answer.text,
            "finish_reason": None,
            "num_tokens": answer.num_tokens,
            "model": answer.model,
            "label": answer.label,
        }
        for index, answer in enumerate(_answers(config, problem)[:limit])
    ]


def _answers(config: CandidatesConfig, problem: Problem) -> list[Answer]:
    if config.pool_path is not None:
        pool = load_pool(config.task, config.pool_path, config.task_path)
        return pool.questions[problem.problem_id].answers
    assert isinstance(problem, TextProblem)
    return [Answer(option, OPTIONS) for option in problem.reference.options]


def _rejected(config: CandidatesConfig) -> pa.Table:
    rejects = []
    if config.pool_path is not None:
        pool = load_pool(config.task, config.pool_path, config.task_path)
        name = file_label(config.pool_path)
        rejects = [
            {
                "row_id": f"{name}#{reject.index}",
                "stage": "candidates",
                "reason": str(reject.reason),
                "detail": reject.detail,
            }
            for reject in pool.rejects
        ]
    return table_from_rows(rejects, REJECTED)
