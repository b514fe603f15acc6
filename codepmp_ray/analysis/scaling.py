"""The scaling curve of a run and its branches (codepmp train branch), read from their stages'
folders.

As a table its cells are the same in the report and on a terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from codepmp_ray.analysis.outcomes import RESULTS_FILE
from codepmp_ray.analysis.text import interval, percent, terminal_table
from codepmp_ray.analysis.trainlog import HeldOut, load_training
from codepmp_ray.config.branches import Branch, plan_branches
from codepmp_ray.config.recipe import Recipe, branch_recipe
from codepmp_ray.json_records import stored_record
from codepmp_ray.runs import open_stage

HEADINGS = (
    "pairs seen",
    "steps",
    "of them decay",
    "tokens",
    "pretrained, held out",
    "reward model, held out",
    "best-of-N",
)


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
    bon = stored_record(stage.store, RESULTS_FILE)["bon"]
    model = bon["reward_model"]
    return BestOfN(
        k=int(bon["k"][-1]),
        accuracy=model["accuracy"][-1],
        low=model["low"][-1],
        high=model["high"][-1],
        random=bon["random"]["accuracy"][-1],
    )


def scaling_cells(points: list[ScalingPoint]) -> list[list[str]]:
    """One row of texts per point, under HEADINGS; accuracies with 95 % intervals."""
    return [
        [
            f"{point.num_pairs:,}",
            f"{point.num_steps:,}",
            "whole run" if point.leaves_at is None else f"{point.num_steps - point.leaves_at:,}",
            f"{point.num_tokens:,}",
            _held_text(point.pretrained),
            _held_text(point.finetuned),
            _best_text(point.best_of_n),
        ]
        for point in points
    ]


def print_scaling(recipe: Recipe, console: Console | None = None) -> None:
    """Print one row per finished run. `console` defaults to standard output."""
    title = "Accuracy by pretraining pairs (95 % interval)"
    cells = scaling_cells(load_scaling(recipe))
    (console or Console()).print(terminal_table(title, HEADINGS, cells, left=()))


def _held_text(found: HeldOut | None) -> str:
    if found is None:
        return "-"
    return f"{percent(found.accuracy)} ({interval(found.low, found.high)})"


def _best_text(found: BestOfN | None) -> str:
    if found is None:
        return "-"
    shown = f"{percent(found.accuracy)} ({interval(found.low, found.high)})"
    return f"{shown} at k={found.k}, random {percent(found.random)}"
