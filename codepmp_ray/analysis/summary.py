"""The end of the main job: what came out, how long it took, where the report is."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from codepmp_ray.analysis.closing import print_closing
from codepmp_ray.analysis.headline import NOT_EVALUATED
from codepmp_ray.analysis.rundata import load_run
from codepmp_ray.analysis.text import duration
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.storage import open_store


def print_summary(recipe: Recipe, console: Console | None = None) -> None:
    """`console` defaults to standard output."""
    run = load_run(recipe)
    screen = console or Console()
    if run.evaluation and run.evaluation.results:
        pretrained = run.pretraining.held_out if run.pretraining else None
        found = run.evaluation
        print_closing(found.results, found.without_pmp, pretrained, screen)
    else:
        screen.print(Text(NOT_EVALUATED, style="bold"))
    if run.total_duration_s is not None:
        screen.print(Text(f"All stages: {duration(run.total_duration_s)}"))
    store = open_store(recipe.run_dir)
    if store.exists("report.html"):
        screen.print(Text(f"Report: {store.locate('report.html')}"), soft_wrap=True)
