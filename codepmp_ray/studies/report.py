"""The report of studies: JSON for machines, one HTML page without external assets, Markdown."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader
from markupsafe import Markup
from rich.console import Console
from rich.table import Table as ScreenTable
from rich.text import Text

from codepmp_ray import __version__
from codepmp_ray.analysis.report import report_environment
from codepmp_ray.analysis.text import duration
from codepmp_ray.evaluation.statistics import holm
from codepmp_ray.hub_models import pin
from codepmp_ray.json_records import record_bytes
from codepmp_ray.studies import paper, words
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.markdown import to_markdown
from codepmp_ray.studies.outcome import Outcome, Plot
from codepmp_ray.studies.plots import draw
from codepmp_ray.versions import git_commit, installed_versions

Values = dict[str, Any]
_CAPTIONS = {
    "curves": ". Bands are 95 % intervals over questions and trainings.",
    "bars": ". Lines at the ends are 95 % intervals; hatched: the paper's.",
    "points": ".",
    "radar": ". The rim is the largest value.",
}


def summary_of(bench: Bench, records: list[Values], command: str) -> Values:
    """Everything that the report says, as JSON values."""
    every = [Outcome.from_json(record["outcome"]) for record in records]
    comparisons = [c for outcome in every for c in outcome.comparisons]
    adjusted = holm([c.p_value for c in comparisons])
    return {
        "name": bench.config.name,
        "paper": paper.SOURCE,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "commit": git_commit(),
        "versions": {"codepmp-ray": __version__, **installed_versions()},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "models": model_sizes(bench),
        "sets": bench.origins(),
        "config": bench.config.model_dump(mode="json"),
        "num_comparisons": len(comparisons),
        "num_beyond_chance": sum(p < 1 - bench.config.confidence for p in adjusted),
        "spent_s": sum(record["spent_s"] for record in records),
        "studies": records,
    }


def model_sizes(bench: Bench) -> Values:
    """Of every model that was trained: parameters, and what it is."""
    from codepmp_ray.studies.cost import training_records
    from codepmp_ray.studies.trend_model import num_parameters, random_model

    used = {record["base"] for record in training_records(bench).values()}
    found = {}
    for name in sorted(used & set(bench.config.models)):
        shape = bench.config.models[name]
        pinned = shape.weights and pin(bench.config.run_dir, shape.weights)
        folder = pinned or random_model(shape, bench.run_dir / "models")
        weights = pinned or f"random {shape.architecture}"
        found[name] = {"num_parameters": num_parameters(folder), "weights": weights}
    return found


def write_reports(bench: Bench, records: list[Values], name: str, command: str = "") -> str:
    """Write NAME.json, NAME.html and NAME.md into `reports/`; where the page lies."""
    values = write_numbers(bench, records, name, command)
    store = bench.store
    store.put(f"reports/{name}.html", render(values).encode())
    store.put(f"reports/{name}.md", to_markdown(values).encode())
    return store.locate(f"reports/{name}.html")


def write_numbers(bench: Bench, records: list[Values], name: str, command: str = "") -> Values:
    """Write NAME.json alone, which takes no drawing; what it says."""
    values = summary_of(bench, records, command or _command())
    text = record_bytes(values, indent=1, ensure_ascii=False)
    bench.store.put(f"reports/{name}.json", text)
    return values


def render(values: Values) -> str:
    """The page of `summary_of`'s values."""
    environment = report_environment()
    own = FileSystemLoader(Path(__file__).parent / "templates")
    assert environment.loader is not None, "the shared environment has its templates"
    environment.loader = ChoiceLoader([own, environment.loader])
    environment.filters |= {
        "value": words.value_text,
        "difference": words.difference_text,
        "power": words.power_text,
        "headings": words.headings,
        "cells": words.cells,
        "has_paper": words.has_paper,
    }
    studies = [
        {
            **record,
            "outcome": (outcome := Outcome.from_json(record["outcome"])),
            "figures": [
                _drawn(plot, f"{record['name']}-{i}") for i, plot in enumerate(outcome.plots)
            ],
        }
        for record in values["studies"]
    ]
    template = environment.get_template("reproduction.html.j2")
    return template.render(values=values, studies=studies, captions=_CAPTIONS)


def _drawn(plot: Plot, name: str) -> Markup:
    """The figure, or what was wrong with it: one figure must not cost the page."""
    try:
        return Markup(draw(plot, name))
    except Exception as error:  # noqa: BLE001 - drawing raises what it likes
        text = f"{plot.title} could not be drawn ({type(error).__name__}: {error})."
        return Markup("<p>{}</p>").format(text)


def print_study(record: Values, console: Console | None = None) -> None:
    """The outcome on a terminal: tables beside the paper, comparisons with their power."""
    screen = console or Console()
    outcome = Outcome.from_json(record["outcome"])
    screen.print(Text(f"{record['place']}: {record['title']} ({outcome.status})", style="bold"))
    for table in outcome.tables:
        unit = "%, " if table.unit == "share" else ""
        shown = ScreenTable(title=f"{table.title} ({unit}95 % interval)", title_justify="left")
        for index, heading in enumerate(["", *words.headings(table)]):
            shown.add_column(heading, justify="right" if index else "left")
        for row in words.cells(table):
            shown.add_row(*(Text(cell) for cell in row))
        screen.print(shown)
    for comparison in outcome.comparisons:
        screen.print(
            Text(
                f"{comparison.question}: {words.difference_text(comparison)}: "
                f"{comparison.verdict}. Power 80 % at {words.power_text(comparison)}."
            )
        )
    for text in (outcome.summary, outcome.remedy, *outcome.differs, *outcome.notes):
        if text:
            screen.print(Text(text))


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    head = f"python -m {spec.name}" if spec else Path(sys.argv[0]).name
    # Where the document lies on this machine is nothing to put into it.
    given = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join([head, *given])


def print_overview(records: list[Values], console: Console | None = None) -> None:
    """One line for each study."""
    shown = ScreenTable(title="Studies", title_justify="left")
    for heading in ("study", "outcome", "time", "what came out"):
        shown.add_column(heading)
    for record in records:
        outcome = record["outcome"]
        cells = (
            record["place"],
            outcome["status"],
            duration(record["spent_s"]),
            outcome["summary"],
        )
        shown.add_row(*(Text(cell) for cell in cells))
    (console or Console()).print(shown)
