"""The grades stage on Ray: one task per shard of candidates, committed under the same shard id."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.cpu_tasks import CpuTasks, cpu_tasks, run_tasks
from codepmp_ray.cluster.preflight import waiting_for
from codepmp_ray.config.evaluation import CandidatesConfig, GraderConfig, SandboxConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.grading import grade_candidates, grade_counts, label_agreement
from codepmp_ray.evaluation.problems import configured_problems
from codepmp_ray.evaluation.sandbox import Sandbox
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.progress import Progress
from codepmp_ray.records import GRADE, Outcome, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.storage import open_store


def grade(recipe: Recipe) -> dict[str, Any]:
    """Run or resume the stage; returns its summary, where `sandbox` names what executes code.

    Raises SandboxUnavailable before anything is done where code cannot be executed, and InputError
    with the numbers where most answers could not be graded.
    """
    stage = open_stage(recipe, "grades")
    if stage.is_complete:
        return stage.summary()
    candidates = open_stage(recipe, "candidates").require()
    # A task keeps all cores of its node busy with processes that it waits for.
    tasks = cpu_tasks("Grading", recipe.evaluation.grader.label_selector, whole_nodes=True)
    executor = _executor(recipe, tasks)
    stage.start()
    start_s = time.monotonic()
    _grade_shards(stage, candidates, recipe, tasks)
    require_all_shards(stage.ledger, len(candidates.ledger.committed_ids()))
    stage.ledger.sweep(("grades",))
    columns = ["candidate_id", "problem_id", "passed", "outcome", "detail"]
    rows = stage.ledger.read("grades", columns).to_pylist()
    labels = candidates.ledger.read("candidates", ["candidate_id", "label"]).to_pylist()
    obstacles = {row["problem_id"]: row["detail"] for row in rows if row["passed"] is None}
    num_judged = sum(row["passed"] is not None for row in rows)
    if 2 * num_judged < len(rows) or not rows:
        name, why = next(iter(obstacles.items()), ("no problem", "there is no answer"))
        raise InputError(
            f"Only {num_judged} of {len(rows)} answers could be graded. {name}: {why}.",
            "docs/evaluation.md says what a problem needs to be graded here.",
        )
    missing = Counter(row["detail"] for row in rows if row["outcome"] == Outcome.MISSING_PACKAGE)
    stage.complete(
        {
            "num_graded": num_judged,
            "outcomes": grade_counts(rows),
            "not_gradable": obstacles,
            "missing_packages": dict(missing.most_common()),
            **label_agreement(rows, {row["candidate_id"]: row["label"] for row in labels}),
            "sandbox": executor,
            "duration_s": round(time.monotonic() - start_s, 1),
        }
    )
    return stage.summary()


def _grade_shards(stage: Stage, candidates: Stage, recipe: Recipe, tasks: CpuTasks) -> None:
    shard_ids = [commit.shard_id for commit in candidates.ledger.commits()]
    missing = sorted(set(shard_ids) - stage.ledger.committed_ids())
    num_done = len(shard_ids) - len(missing)
    with Progress(
        "grades", len(shard_ids), "shards", done=num_done, waiting_for=waiting_for
    ) as progress:
        if not missing:
            progress.update(num_done)
            return
        # The cores that a task has asked for; those of its node where it asks for none.
        limits = [
            own.model_copy(update={"num_parallel": own.num_parallel or tasks.num_cpus or None})
            for own in (recipe.evaluation.sandbox, recipe.evaluation.grader)
        ]
        grade = partial(_grade_shard, candidates.uri, stage.uri, recipe.candidates, *limits)
        num_passed = num_graded = 0
        for graded, passed in run_tasks(grade, missing, tasks):
            num_done += 1
            num_graded += graded
            num_passed += passed
            progress.update(num_done, f"{num_passed} of {num_graded} answers pass")


def _grade_shard(
    source_dir: str,
    out_dir: str,
    task: CandidatesConfig,
    sandbox: SandboxConfig,
    grader: GraderConfig,
    shard_id: int,
) -> tuple[int, int]:
    """Grade and commit one shard; returns how many answers it has, and how many of them pass."""
    source = ShardLedger(open_store(source_dir))
    rows = source.read_shard("candidates", shard_id).to_pylist()
    grades = grade_candidates(rows, task, sandbox, grader)
    tables = {"grades": table_from_rows(grades, GRADE)}
    ShardLedger(open_store(out_dir)).commit(shard_id, len(rows), tables)
    return len(grades), sum(bool(row["passed"]) for row in grades)


def _executor(recipe: Recipe, tasks: CpuTasks) -> str:
    """What executes code: on this machine, or where a selector sends the tasks.

    Raises ConfigError for a problem that nobody has, and SandboxUnavailable.
    """
    if problem_task(recipe.candidates.task).grader != "code":
        return "none needed: the answers are not code"
    config = recipe.evaluation.sandbox
    known = configured_problems(recipe.candidates)
    if unknown := [name for name in config.shared_process if name not in known]:
        raise ConfigError(
            f"evaluation.sandbox.shared_process names {unknown[0]!r}, "
            f"which {recipe.candidates.task} does not have.",
            f"Its problems are called like {next(iter(known))!r}.",
        )
    if not tasks.label_selector:
        return _description(config)
    (found,) = run_tasks(_description, [config], tasks)
    return found


def _description(config: SandboxConfig) -> str:
    return Sandbox.detect(config).description
