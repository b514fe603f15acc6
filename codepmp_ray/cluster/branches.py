"""The whole pretraining and its branches, each a pretraining stage of its own."""

from __future__ import annotations

from codepmp_ray.cluster.training import pretrain
from codepmp_ray.config.branches import plan_branches
from codepmp_ray.config.recipe import Recipe, branch_recipe
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import open_store
from codepmp_ray.training.task import Trunk


def require_branchable(recipe: Recipe) -> None:
    """Raises before anything starts: ConfigError for settings, InputError for missing stages."""
    training, branches = recipe.pretraining, recipe.branches
    named = {
        f"pretraining.schedule={training.schedule}": training.schedule != "wsd",
        f"pretraining.trunk_steps={training.trunk_steps}": training.trunk_steps is not None,
        f"pretraining.best_metric={training.best_metric}": training.best_metric is not None,
        "branches.evaluate without branches.finetune": branches.evaluate and not branches.finetune,
        # Each of these would put the same model in the place of every branch's.
        "finetuning.model_name_or_path": branches.finetune
        and recipe.finetuning.model_name_or_path is not None,
        "serving.model_path": branches.evaluate and recipe.serving.model_path is not None,
        "evaluation.endpoint": branches.evaluate and recipe.evaluation.endpoint is not None,
    }
    if wrong := [name for name, is_wrong in named.items() if is_wrong]:
        raise ConfigError(
            f"A run cannot be branched with {', '.join(wrong)}.",
            "Branches need schedule=wsd and each its own last weights; remove these settings.",
        )
    needed = {
        "synthesis": not training.data,
        "candidates": (branches.finetune and not recipe.finetuning.data) or branches.evaluate,
    }
    needed["grades"] = needed["candidates"]
    for name in [name for name, is_needed in needed.items() if is_needed]:
        open_stage(recipe, name).require()


def pretrain_branches(recipe: Recipe) -> list[Recipe]:
    """Pretrain the whole run, then its branches, longest first; what is finished is left alone.

    Returns the recipes of all of them: the later stages of each follow from its recipe. The
    checkpoint at a branch point is deleted when no unfinished branch needs it.
    """
    trunk = Trunk(_folder(recipe), recipe.pretraining, recipe.branches)
    trunk_steps = pretrain(recipe, trunk)["num_steps"]
    planned = plan_branches(recipe.pretraining, recipe.branches, trunk_steps)
    recipes = [branch_recipe(recipe, branch, trunk_steps) for branch in planned]
    for own in recipes:
        pretrain(own, trunk)
        _remove_unneeded(recipe, trunk_steps)
    open_store(trunk.folder).delete_tree("")
    return [recipe, *recipes]


def _remove_unneeded(recipe: Recipe, trunk_steps: int) -> None:
    from codepmp_ray.training.shared_checkpoints import remove_shared

    planned = plan_branches(recipe.pretraining, recipe.branches, trunk_steps)
    waiting = {
        branch.leaves_at
        for branch in planned
        if not open_stage(branch_recipe(recipe, branch, trunk_steps), "pretraining").is_complete
    }
    for step in {branch.leaves_at for branch in planned} - waiting:
        remove_shared(open_store(_folder(recipe)), step)


def _folder(recipe: Recipe) -> str:
    """Of the shared checkpoints; named after the whole run's pretraining stage."""
    stage = open_stage(recipe, "pretraining")
    return open_store(recipe.run_dir).locate(f"trunk-{stage.fingerprint}")
