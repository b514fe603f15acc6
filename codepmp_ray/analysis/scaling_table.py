"""The scaling curve as a table: cells for the report, and the same on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codepmp_ray.analysis.scaling import BestOfN, ScalingPoint, load_scaling
from codepmp_ray.analysis.text import interval, percent
from codepmp_ray.analysis.trainlog import HeldOut
from codepmp_ray.config.recipe import Recipe

HEADINGS = (
    "pairs seen",
    "steps",
    "of them decay",
    "tokens",
    "pretrained, held out",
    "reward model, held out",
    "best-of-N",
)


def scaling_cells(points: list[ScalingPoint]) -> list[list[str]]:
    """One row of texts per point, under HEADINGS; accuracies with 95 % intervals."""
    return [
        [
            f"{point.num_pairs:,}",
            f"{point.num_steps:,}",
            "whole run" if point.leaves_at is None else f"{point.num_steps - point.leaves_at:,}",
            f"{point.num_tokens:,}",
            _held_out(point.pretrained),
            _held_out(point.finetuned),
            _best_of_n(point.best_of_n),
        ]
        for point in points
    ]


def print_scaling(recipe: Recipe, console: Console | None = None) -> None:
    """Print one row per finished run. `console` defaults to standard output."""
    table = Table(title="Accuracy by pretraining pairs (95 % interval)", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for cells in scaling_cells(load_scaling(recipe)):
        table.add_row(*(Text(cell) for cell in cells))
    (console or Console()).print(table)


def _held_out(found: HeldOut | None) -> str:
    if found is None:
        return "-"
    return f"{percent(found.accuracy)} ({interval(found.low, found.high)})"


def _best_of_n(found: BestOfN | None) -> str:
    if found is None:
        return "-"
    shown = f"{percent(found.accuracy)} ({interval(found.low, found.high)})"
    return f"{shown} at k={found.k}, random {percent(found.random)}"
