"""Labelled pools for the audit: read, cut by a hash, scored through the service in shards.

The same file gives the same cut everywhere: problems, and candidates of a problem, that are first
in a hash's order. `ScoredPool` is also what a finished evaluation of the recipe becomes, with
nothing to score.
"""

from __future__ import annotations

from collections import Counter
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
from codepmp_ray.evaluation.labelled_pools import Candidate, load_labelled_pools
from codepmp_ray.evaluation.scored_shards import Request
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import open_stage

EVALUATION = "evaluation"
Row = dict[str, Any]


@dataclass(frozen=True)
class AuditPool:
    """What of a file is scored.

    Attributes:
        name: the file's, with a number where several are called alike.
        problems: (id, question, candidates with their number in the file's problem).
        rejected: rows and candidates that cannot be used, by reason.
        num_unused: candidates beyond the cut.
    """

    name: str
    problems: list[tuple[str, str, list[tuple[int, Candidate]]]]
    rejected: dict[str, int]
    num_unused: int


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


def load_audit_pools(config: AuditConfig) -> list[AuditPool]:
    """The pools of `config.pools`, cut to `max_problems` and `max_candidates`.

    Raises InputError for files that cannot be read, and where no labelled candidate answers a
    question.
    """
    names = _names(config.pools)
    return [_load(name, path, config) for name, path in zip(names, config.pools, strict=True)]


def pool_requests(pool: AuditPool) -> list[Request]:
    """One for each problem; rows are those of AUDIT_POOL_SCORE."""
    return [
        Request(
            question,
            [candidate.text or "" for _, candidate in candidates],
            partial(_rows, pool.name, problem_id, candidates),
        )
        for problem_id, question, candidates in pool.problems
    ]


def scored(pool: AuditPool, rows: Sequence[Row]) -> ScoredPool:
    """`pool` with the scores of its AUDIT_POOL_SCORE rows."""
    score_of = {(row["problem_id"], row["candidate_index"]): row for row in rows}
    answers = [
        (problem_id, candidate, score_of[problem_id, number])
        for problem_id, _, candidates in pool.problems
        for number, candidate in candidates
    ]
    return ScoredPool(
        pool.name,
        [problem_id for problem_id, _, _ in answers],
        [float(candidate.passed) for _, candidate, _ in answers],
        [row["score"] for _, _, row in answers],
        [candidate.model for _, candidate, _ in answers],
        [candidate.text or "" for _, candidate, _ in answers],
        {
            "num_truncated": sum(bool(row["truncated"]) for _, _, row in answers),
            "num_unused": pool.num_unused,
            "rejected": pool.rejected,
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


def _load(name: str, path: str, config: AuditConfig) -> AuditPool:
    loaded = load_labelled_pools(PoolStatisticsConfig(path=path), True, "audit.pools")
    rejected = Counter(loaded.reject_counts)
    asked = [(i, q) for i in loaded.pools if (q := loaded.questions.get(i))]
    if missing := len(loaded.pools) - len(asked):
        rejected[str(RejectReason.PROMPT_EMPTY)] += missing
    if not asked:
        raise InputError(
            f"{path} has {len(loaded.pools)} problems with labelled candidates, and none of them "
            "with its question, which a reward model has to see.",
            "Give its rows a column question, problem or prompt, or leave it out of audit.pools.",
        )
    asked.sort(key=lambda item: stable_id(item[0]))
    problems = []
    for problem_id, question in asked[: config.max_problems]:
        candidates = list(enumerate(loaded.pools[problem_id]))
        candidates.sort(key=lambda item: stable_id(problem_id, str(item[0])))
        kept = sorted(candidates[: config.max_candidates], key=lambda item: item[0])
        problems.append((problem_id, question, kept))
    num_all = sum(len(loaded.pools[problem_id]) for problem_id, _ in asked)
    num_kept = sum(len(candidates) for _, _, candidates in problems)
    return AuditPool(name, problems, dict(sorted(rejected.items())), num_all - num_kept)


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


def _rows(
    name: str,
    problem_id: str,
    candidates: Sequence[tuple[int, Candidate]],
    scores: list[CandidateScore],
) -> list[Row]:
    return [
        {
            "pool": name,
            "problem_id": problem_id,
            "candidate_index": number,
            "model": candidate.model,
            "passed": candidate.passed,
            "score": score.score,
            "num_tokens": score.num_tokens,
            "truncated": score.truncated,
        }
        for (number, candidate), score in zip(candidates, scores, strict=True)
    ]
