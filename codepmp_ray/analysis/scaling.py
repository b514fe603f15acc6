"""The scaling curve of a run and its branches (jobs.branch), read from their stages' folders."""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.analysis.outcomes import RESULTS_FILE
from codepmp_ray.analysis.trainlog import HeldOut, load_training
from codepmp_ray.config.branches import Branch, plan_branches
from codepmp_ray.config.recipe import Recipe, branch_recipe
from codepmp_ray.json_records import read_record
from codepmp_ray.runs import open_stage


@dataclass(frozen=True)
class BestOfN:
    """Accuracy of the pick among k with its 95 % interval, and that of a random pick."""

    k: int
    accuracy: float
    low: float
    high: float
    random: float


@dataclass(frozen=True)
class ScalingPoint:
    """One run of the family; what is not measured (yet) is None.

    Attributes:
        leaves_at: steps that it shares with the trunk; None for the whole run.
        num_pairs: pairs seen, those of the shared steps included.
    """

    num_steps: int
    leaves_at: int | None
    num_pairs: int
    num_tokens: int
    folder: str
    pretrained: HeldOut | None
    finetuned: HeldOut | None
    best_of_n: BestOfN | None


def load_scaling(recipe: Recipe) -> list[ScalingPoint]:
    """Finished runs of the family, shortest first; empty as long as there is no finished branch."""
    whole = open_stage(recipe, "pretraining")
    if not whole.is_complete or recipe.pretraining.schedule != "wsd":
        return []
    trunk_steps = int(whole.summary().get("num_steps", 0))
    points = [
        _point(branch_recipe(recipe, branch, trunk_steps), branch)
        for branch in plan_branches(recipe.pretraining, recipe.branches, trunk_steps)
    ]
    known = [point for point in points if point is not None]
    if not known:
        return []
    trunk = _point(recipe, None)
    return [*reversed(known), *([trunk] if trunk else [])]


def _point(recipe: Recipe, branch: Branch | None) -> ScalingPoint | None:
    stage = open_stage(recipe, "pretraining")
    if not stage.is_complete:
        return None
    summary = stage.summary()
    finetuning = open_stage(recipe, "finetuning")
    return ScalingPoint(
        num_steps=summary["num_steps"],
        leaves_at=branch.leaves_at if branch else None,
        num_pairs=summary["num_pairs_seen"],
        num_tokens=summary["num_tokens"],
        folder=stage.folder,
        pretrained=load_training(stage).held_out,
        finetuned=load_training(finetuning).held_out if finetuning.is_complete else None,
        best_of_n=_best_of_n(recipe),
    )


def _best_of_n(recipe: Recipe) -> BestOfN | None:
    stage = open_stage(recipe, "evaluation")
    if not stage.is_complete:
        return None
    bon = read_record(stage.store.read_bytes(RESULTS_FILE))["bon"]
    model = bon["reward_model"]
    return BestOfN(
        k=int(bon["k"][-1]),
        accuracy=model["accuracy"][-1],
        low=model["low"][-1],
        high=model["high"][-1],
        random=bon["random"]["accuracy"][-1],
    )
