"""The end of the main job: what came out, or as long as nothing did, how far each stage is."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codepmp_ray.analysis.closing import print_closing
from codepmp_ray.analysis.headline import NOT_EVALUATED, stage_rows
from codepmp_ray.analysis.rundata import RunData, load_run
from codepmp_ray.analysis.text import duration, visible
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.storage import open_store

_MARKS = {"complete": "done", "unfinished": "not finished", "missing": "missing"}


def print_summary(recipe: Recipe, console: Console | None = None) -> None:
    """Print the closing output, or a row per stage. `console` defaults to standard output."""
    run = load_run(recipe)
    screen = console or Console()
    if run.evaluation and run.evaluation.results:
        pretrained = run.pretraining.held_out if run.pretraining else None
        found = run.evaluation
        print_closing(found.results, found.without_pmp, pretrained, screen)
    else:
        screen.print(_stages(run))
        screen.print(Text(NOT_EVALUATED, style="bold"))
    if run.total_duration_s is not None:
        screen.print(Text(f"All stages: {duration(run.total_duration_s)}"))
    store = open_store(recipe.run_dir)
    if store.exists("report.html"):
        screen.print(Text(f"Report: {store.locate('report.html')}"), soft_wrap=True)


def _stages(run: RunData) -> Table:
    # Text, not strings: rich would read [brackets] in names as its own markup.
    table = Table(title=Text(visible(run.recipe.name)), title_justify="left")
    for heading in ("stage", "state", "result"):
        table.add_column(heading, overflow="fold")
    table.add_column("rejected", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    for row in stage_rows(run):
        rejected = "-" if row.num_rejected is None else f"{row.num_rejected:,}"
        cells = [row.title, _MARKS[row.state.status], row.came_out, rejected, row.time]
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table
