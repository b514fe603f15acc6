"""Labelled pools for the audit: read, cut by a hash, scored through the service in shards.

The same file gives the same cut everywhere: problems, and candidates of a problem, that are first
in a hash's order. `ScoredPool` is also what a finished evaluation of the recipe becomes, with
nothing to score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any

from codepmp_ray.client import CandidateScore
from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.config.pool_statistics import PoolStatisticsConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_files import load_labelled_pool
from codepmp_ray.evaluation.pools import Pool, Question
from codepmp_ray.evaluation.scored_shards import Request
from codepmp_ray.preference.sources.rows import Unusable
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import open_stage

EVALUATION = "evaluation"
Row = dict[str, Any]


@dataclass(frozen=True)
class ScoredPool:
    """One entry for each answer; `texts` is None where they are not there any more."""

    name: str
    problems: list[str] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    models: list[str | None] = field(default_factory=list)
    texts: list[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def load_audit_pools(config: AuditConfig) -> list[Pool]:
    """The pools of `config.pools`, cut to `max_problems` and `max_candidates`.

    Raises InputError for files that cannot be read, and where no labelled candidate answers a
    question.
    """
    names = _names(config.pools)
    return [_load(name, path, config) for name, path in zip(names, config.pools, strict=True)]


def pool_requests(pool: Pool) -> list[Request]:
    """One for each question; rows are those of AUDIT_POOL_SCORE."""
    return [
        Request(q.text or "", [a.text for a in q.answers], partial(_rows, pool.name, q))
        for q in pool
    ]


def scored(pool: Pool, rows: Sequence[Row]) -> ScoredPool:
    """`pool` with the scores of its AUDIT_POOL_SCORE rows."""
    score_of = {(row["problem_id"], row["candidate_index"]): row for row in rows}
    answers = [(q.name, a, score_of[q.name, a.place]) for q in pool for a in q.answers]
    return ScoredPool(
        pool.name,
        [name for name, _, _ in answers],
        [float(answer.label or 0) for _, answer, _ in answers],
        [row["score"] for _, _, row in answers],
        [answer.model for _, answer, _ in answers],
        [answer.text for _, answer, _ in answers],
        {
            "num_truncated": sum(bool(row["truncated"]) for _, _, row in answers),
            "num_unused": pool.num_unused,
            "rejected": pool.reject_counts,
        },
    )


def evaluated_pool(recipe: Recipe) -> ScoredPool | None:
    """The candidates of a finished evaluation of this recipe; None without one, or where any of
    them was not graded."""
    evaluation, grades = open_stage(recipe, "evaluation"), open_stage(recipe, "grades")
    if not (evaluation.is_complete and grades.is_complete):
        return None
    passed_of = {
        row["candidate_id"]: row["passed"] for row in grades.ledger.read("grades").to_pylist()
    }
    rows = evaluation.ledger.read("scores").to_pylist()
    passed = [passed_of.get(row["candidate_id"]) for row in rows]
    if not rows or None in passed:
        return None
    known = _candidates({row["candidate_id"] for row in rows}, recipe)
    found = [known.get(row["candidate_id"], {}) for row in rows]
    texts = [row.get("completion") for row in found]
    return ScoredPool(
        EVALUATION,
        [row["problem_id"] for row in rows],
        [float(bool(value)) for value in passed],
        [row["score"] for row in rows],
        [row.get("model") for row in found],
        None if None in texts else [str(text) for text in texts],
        {"num_truncated": sum(bool(row["truncated"]) for row in rows)},
    )


def _load(name: str, path: str, config: AuditConfig) -> Pool:
    pool = load_labelled_pool(PoolStatisticsConfig(path=path), True, "audit.pools")
    asked = [question for question in pool if question.text]
    for question in pool:
        if not question.text:
            pool.reject(question.row, Unusable(RejectReason.PROMPT_EMPTY, "no question"))
    if not asked:
        raise InputError(
            f"{path} has {len(pool.questions)} problems with labelled candidates, and none of them "
            "with its question, which a reward model has to see.",
            "Give its rows a column question, problem or prompt, or leave it out of audit.pools.",
        )
    num_answers = sum(len(question.answers) for question in asked)
    asked.sort(key=lambda question: stable_id(question.name))
    pool.questions = {q.name: q for q in asked[: config.max_problems]}
    for question in pool:
        order = sorted(question.answers, key=lambda a: stable_id(question.name, str(a.place)))
        question.answers = sorted(order[: config.max_candidates], key=lambda a: a.place)
    pool.name, pool.num_unused = name, num_answers - sum(len(q.answers) for q in pool)
    return pool


def _candidates(wanted: set[str], recipe: Recipe) -> dict[str, Row]:
    """Text and model by id; a shard at a time, since those for training are there, too."""
    columns = ["candidate_id", "completion", "model"]
    shards = open_stage(recipe, "candidates").ledger.read_each("candidates", columns)
    return {
        row["candidate_id"]: row
        for shard in shards
        for row in shard.to_pylist()
        if row["candidate_id"] in wanted
    }


def _names(paths: Sequence[str]) -> list[str]:
    labels = [PurePath(path).name for path in paths]
    return [
        label if labels.count(label) == 1 else f"{number}-{label}"
        for number, label in enumerate(labels, start=1)
    ]


def _rows(name: str, question: Question, scores: list[CandidateScore]) -> list[Row]:
    return [
        {
            "pool": name,
            "problem_id": question.name,
            "candidate_index": answer.place,
            "model": answer.model,
            "passed": answer.label,
            "score": score.score,
            "num_tokens": score.num_tokens,
            "truncated": score.truncated,
        }
        for answer, score in zip(question.answers, scores, strict=True)
    ]
