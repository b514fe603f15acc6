"""Label noise of a recipe's two models: the candidates and grades stages, once per role."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from codepmp_ray.cluster.grading import grade
from codepmp_ray.cluster.sampling import sample_candidates
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.engines import Role
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError
from codepmp_ray.evaluation.label_noise import LabelNoise, label_noise, pass_rates
from codepmp_ray.evaluation.sandbox import Sandbox
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.json_records import record_bytes
from codepmp_ray.runs import open_stage, run_manifest
from codepmp_ray.storage import open_store


def measure_label_noise(recipe: Recipe) -> tuple[LabelNoise, str]:
    """Sample, grade and compare; returns the figures and where they are stored.

    Both models' stages resume like any other. Raises ConfigError when the recipe's roles are one
    and the same model, SandboxUnavailable where code is to be executed and cannot be.
    """
    engines = recipe.engines
    if engines.strong.result_fields() == engines.weak.result_fields():
        raise ConfigError(
            f"engines.strong and engines.weak are the same "
            f"({engines.strong.model_name_or_path}): there is no stronger one to be wrong about.",
            "Name two models, for example with --config jobs/recipes/qwen2-1.5b-math.yaml.",
        )
    if problem_task(recipe.candidates.task).grader == "code":
        Sandbox.detect(recipe.evaluation.sandbox)  # raises before any model is loaded
    grades: dict[str, list[dict[str, Any]]] = {}
    prints: list[str] = []
    for role in ("strong", "weak"):
        variant = recipe_of_role(recipe, role)
        sample_candidates(variant)
        grade(variant)
        stage = open_stage(variant, "grades")
        grades[role] = stage.ledger.read("grades").to_pylist()
        prints.append(stage.fingerprint)
    ids, strong, weak = pass_rates(grades["strong"], grades["weak"])
    settings = recipe.evaluation
    result = label_noise(strong, weak, settings.confidence, settings.num_bootstrap, settings.seed)
    rates = [
        {"problem_id": name, "strong": s, "weak": w}
        for name, s, w in zip(ids, strong.tolist(), weak.tolist(), strict=True)
    ]
    record = {
        **asdict(result),
        "task": recipe.candidates.task,
        "num_samples": recipe.candidates.num_eval_samples,
        "strong_model": engines.strong.model_name_or_path,
        "weak_model": engines.weak.model_name_or_path,
        "confidence": settings.confidence,
        "pass_rates": rates,
        "manifest": run_manifest(recipe),
    }
    store = open_store(recipe.run_dir)
    name = f"label-noise-{recipe.candidates.task}-{fingerprint(*prints)}.json"
    store.put(name, record_bytes(record, indent=2))
    return result, store.locate(name)


def recipe_of_role(recipe: Recipe, role: Role) -> Recipe:
    """`recipe` with candidates by `role`, sampled as its side is in synthesis."""
    candidates = recipe.candidates
    changes = {
        "role": role,
        "pool_path": None,
        "engine": None,
        "sampling": recipe.synthesis.chosen if role == "strong" else recipe.synthesis.rejected,
        "num_train_problems": 0,
        "num_eval_problems": candidates.num_train_problems + candidates.num_eval_problems,
    }
    own = recipe.without_reuse("candidates", "grades")
    return own.model_copy(update={"candidates": candidates.model_copy(update=changes)})
