"""What PMP adds: the same recipe with the reward model finetuned from the base model.

Both arms share corpus, pairs, answers and grades; the other one has a finetuning and an evaluation
of its own, in the same run directory.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from codepmp_ray.analysis.outcomes import WITHOUT_PMP_FILE
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation import statistics
from codepmp_ray.evaluation.scoring_run import read_results
from codepmp_ray.json_records import record_bytes
from codepmp_ray.runs import open_stage

OWN_STAGES = ("finetuning", "evaluation")  # of the other arm


def recipe_without_pmp(recipe: Recipe) -> Recipe:
    """The other arm. Raises ConfigError where finetuning does not begin with this run's PMP."""
    own = recipe.finetuning
    if own.model_name_or_path is not None or recipe.serving.model_path is not None:
        raise ConfigError(
            f"finetuning.model_name_or_path={own.model_name_or_path}, serving.model_path="
            f"{recipe.serving.model_path}: this reward model does not come from the recipe's PMP, "
            "so there is nothing to compare.",
            "Set both to null, or compare without --compare.",
        )
    named = recipe.pretraining
    base = named if named.model_name_or_path is not None else recipe.engines.strong
    start = {"model_name_or_path": base.model_name_or_path, "revision": base.revision}
    return recipe.model_copy(update={"finetuning": own.model_copy(update=start)})


def compare_with(recipe: Recipe, other: Recipe) -> dict[str, Any]:
    """Best of N of both arms on the same problems; kept beside `recipe`'s results and returned.

    Raises InputError when an evaluation is not finished.
    """
    ours, theirs = read_results(recipe), read_results(other)
    if not ours.get("picked") or not theirs.get("picked"):
        raise InputError(
            "The evaluations hold no picks by problem: nothing was executed, or an earlier version "
            "made them.",
            "Remove the evaluation- folders of the run directory and run it again.",
        )
    config = recipe.evaluation
    names = list(ours["picked"])
    left, right = (np.array([found["picked"][name] for name in names]) for found in (ours, theirs))
    difference = statistics.paired_difference(
        left, right, config.confidence, config.num_bootstrap, config.seed
    )
    last = {key: theirs["bon"]["reward_model"][key][-1] for key in ("accuracy", "low", "high")}
    found = {
        **last,
        "num_problems": len(names),
        "to_random": theirs["differences"]["reward_model"],
        "difference": asdict(difference),
        "folder": open_stage(other, "evaluation").folder,
    }
    store = open_stage(recipe, "evaluation").store
    store.put(WITHOUT_PMP_FILE, record_bytes(found, indent=2))
    return found
