"""Look before a job starts: nodes, versions, storage, models, and whether each stage can run.

On a laptop it takes seconds; on a cluster every node is asked. Ends with exit code 4 when something
would fail.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import CodePMPError, ResourceError
from codepmp_ray.runs import STAGE_JOBS, base_model, open_stage
from codepmp_ray.storage.uris import written_name
from jobs._cli import run_job

if TYPE_CHECKING:
    from codepmp_ray.cluster.check import Finding


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.check import feasible, look, stop_finding
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.evaluation.tasks.registry import problem_task

    with connect():
        waiting = [name for name in STAGE_JOBS if not _is_complete(recipe, name)]
        executes = problem_task(recipe.candidates.task).grader == "code" and "grades" in waiting
        sandbox = recipe.evaluation.sandbox if executes else None
        findings = look(recipe.run_dir, _models(recipe, waiting), sandbox)
        findings += [feasible(name, partial(_plan, recipe, name)) for name in waiting]
        findings += [feasible("serving", partial(_plan, recipe, "serving"))]
        findings += stop_finding(
            max(recipe.pretraining.stop_timeout_s, recipe.finetuning.stop_timeout_s)
        )
    for finding in findings:
        _show(finding)
    failed = [finding for finding in findings if finding.state == "FAIL"]
    if failed:
        raise ResourceError(
            f"{len(failed)} of {len(findings)} checks failed.", "What to do is said above."
        )
    print(f"{len(findings)} checks, nothing failed.")


def _show(finding: Finding) -> None:
    print(f"{finding.state:<5} {finding.subject:<15} {finding.detail}")
    if finding.remedy and finding.state != "ok":
        print(f"{'':<21} -> {finding.remedy}")


def _is_complete(recipe: Recipe, name: str) -> bool:
    try:
        return open_stage(recipe, name).is_complete
    except CodePMPError:  # storage says more about that
        return False


def _models(recipe: Recipe, waiting: list[str]) -> list[str]:
    """Models that the waiting stages start from."""
    from codepmp_ray.synthesis.plan import plan_pools

    engines = []
    if "synthesis" in waiting:
        engines += [pool.engine for pool in plan_pools(recipe.synthesis, recipe.engines)]
    if "candidates" in waiting:
        engines.append(recipe.generator)
    names = [engine.written_name for engine in engines if engine.kind == "vllm"]
    if "pretraining" in waiting:
        names.append(base_model(recipe))
    own = recipe.finetuning
    if "finetuning" in waiting and own.model_name_or_path:
        names.append(written_name(own.model_name_or_path, own.revision))
    return names


def _plan(recipe: Recipe, name: str) -> str:
    """One line about stage `name`; raises a CodePMPError when it cannot run."""
    from codepmp_ray.cluster.preflight import engine_needs, require_needs
    from codepmp_ray.cluster.training import training_need
    from codepmp_ray.corpus.decontamination import load_evaluation_index
    from codepmp_ray.corpus.sources import check_corpus_config
    from codepmp_ray.evaluation.problems import split_problems
    from codepmp_ray.synthesis.plan import plan_pools
    from codepmp_ray.training.trackers import require_trackers

    if name == "corpus":
        check_corpus_config(recipe.corpus_in_use)
        load_evaluation_index(recipe.corpus_in_use.decontamination)
        return f"source {recipe.corpus.source.kind}, evaluation sets can be read"
    if name in ("pretraining", "finetuning"):
        config = getattr(recipe, name)
        require_trackers(config.report_to)
        needs = [training_need(name, config)[0]]
    elif name == "synthesis":
        pools = plan_pools(recipe.synthesis, recipe.engines)
        needs = engine_needs([(pool.name, pool.engine) for pool in pools])
    elif name == "candidates":
        split_problems(recipe.candidates)
        role = recipe.candidates.role
        needs = engine_needs([(role, getattr(recipe.engines, role))])
    elif name == "serving":
        from serve.application import gpus_per_replica, serving_need

        needs = [serving_need(recipe.serving, gpus_per_replica(recipe.serving))]
    else:
        return "needs what the stages before it leave"
    require_needs(needs)
    return "; ".join(need.describe() for need in needs)


if __name__ == "__main__":
    run_job(__doc__, body)
