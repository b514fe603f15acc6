"""What a plain installation does not have, said before anything starts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe


def require_engine(setting: str, engine: str, *extras: str) -> None:
    """Raise ResourceError where `engine` is vllm and that is not installed."""
    from codepmp_ray.versions import require_vllm

    if engine == "vllm":
        require_vllm(setting, *extras)


def require_extras(recipe: Recipe, stages: Collection[str]) -> None:
    """Raise ResourceError or ModelError for packages of engines and models that `stages` need."""
    engines = []
    if "synthesis" in stages:
        from codepmp_ray.synthesis.plan import plan_pools

        engines += [pool.engine for pool in plan_pools(recipe.synthesis, recipe.engines)]
    if "candidates" in stages:
        from codepmp_ray.evaluation.given_candidates import are_given

        engines += [] if are_given(recipe.candidates) else [recipe.generator]
    for engine in engines:
        is_builtin = engine.model_name_or_path.startswith("builtin:")
        require_engine("engines.*.kind", engine.kind, *(["demo"] if is_builtin else []))
        if engine.kind == "vllm" and is_builtin:
            from codepmp_ray.modeling.sources import require_builtin

            require_builtin(engine.model_name_or_path)
    if "evaluation" in stages and recipe.evaluation.endpoint is None:
        require_engine("serving.engine", recipe.serving.engine)
