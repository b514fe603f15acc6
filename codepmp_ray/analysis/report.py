"""One self-contained HTML file about a run. It loads nothing: no script, no font, no image."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from codepmp_ray import __version__
from codepmp_ray.analysis import closing, paper, plots
from codepmp_ray.analysis.rundata import RunData, StageState, load_run
from codepmp_ray.analysis.scaling import HEADINGS, scaling_cells
from codepmp_ray.analysis.text import (
    MIN_HEADLINE_ITEMS,
    duration,
    interval,
    percent,
    shortened,
    visible,
)
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.redaction import redacted_values
from codepmp_ray.storage import open_store

REPORT_FILE = "report.html"
_MAX_TEXT_CHARS = 4_000
_NOT_FIGURES = {"stage", "fingerprint", "finished", "duration_s"}


def write_report(recipe: Recipe) -> str:
    """Write `<run_dir>/report.html`, replacing an older one, and return where it is.

    Stages that are missing are named in the report. Raises StorageError for damaged files.
    """
    store = open_store(recipe.run_dir)
    store.put(REPORT_FILE, render_report(load_run(recipe)).encode())
    return store.locate(REPORT_FILE)


def render_report(run: RunData) -> str:
    """The HTML of a run."""
    found = run.evaluation
    results, without_pmp = (found.results, found.without_pmp) if found else ({}, {})
    pretrained = run.pretraining.held_out if run.pretraining else None
    told = closing.sentences(results, without_pmp, pretrained)
    shown = redacted_values(run.recipe.model_dump(mode="json"))
    return (
        report_environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            recipe_yaml=yaml.safe_dump(shown, sort_keys=False),
            rows=closing.stage_rows(run),
            answer=" ".join(told).strip() or closing.NOT_EVALUATED,
            rules=closing.rules(results, without_pmp),
            versions=_versions(list(run.stages.values())),
            figures=_figures(run),
            scaling_headings=HEADINGS,
            scaling_rows=scaling_cells(run.scaling),
            paper=paper,
            product_version=__version__,
        )
    )


def report_environment(own: Path | None = None) -> Environment:
    """Templates, escaping and filters that all pages share; templates of the folder `own` first."""
    folders = [*([] if own is None else [own]), Path(__file__).parent / "templates"]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pct": percent,
        "duration": duration,
        "figure": _figure_text,
        "short": functools.partial(shortened, max_chars=_MAX_TEXT_CHARS),
        "series_label": plots.series_label,
        "series_order": plots.series_order,
        "recorded": _recorded,
        "model_name": _model_name,
    }
    environment.globals["interval"] = interval
    environment.globals["min_headline_items"] = MIN_HEADLINE_ITEMS
    return environment


def _shown(value: Any) -> Any:
    """Every value on its way into the page; escaping follows in the engine."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _figures(run: RunData) -> dict[str, Markup]:
    """Plots by name; those without data are absent."""
    made: dict[str, str] = {}
    if run.corpus and run.corpus.reasons:
        made["corpus_reasons"] = plots.reasons_chart(run.corpus.reasons, "corpus_reasons")
    if pairs := run.synthesis:
        if pairs.reasons:
            made["synthesis_reasons"] = plots.reasons_chart(pairs.reasons, "synthesis_reasons")
        if pairs.num_pairs:
            chosen, rejected = pairs.sizes["chosen"], pairs.sizes["rejected"]
            made["lengths"] = plots.length_histogram(chosen, rejected, "lengths", pairs.unit)
    for stage, data in (("pretraining", run.pretraining), ("finetuning", run.finetuning)):
        if data and data.steps:
            made[f"{stage}_loss"] = plots.loss_curve(data.steps, data.evals, f"{stage}_loss")
            name = f"{stage}_accuracy"
            made[name] = plots.accuracy_curve(data.steps, data.evals, name)
            made[f"{stage}_rate"] = plots.learning_rate_curve(data.steps, f"{stage}_rate")
    if run.evaluation and run.evaluation.ks and run.evaluation.curves:
        evaluation = run.evaluation
        best_rule = evaluation.results.get("null_rule", "length")
        others = {*closing.NULL_RULES} - {best_rule}
        curves = {name: of for name, of in evaluation.curves.items() if name not in others}
        made["best_of_n"] = plots.best_of_n_curve(evaluation.ks, curves, "best_of_n")
        shown = closing.rules(evaluation.results, evaluation.without_pmp)
        if shown:
            made["differences"] = plots.differences_chart(shown, "differences")
    if run.scaling:
        made["scaling"] = plots.scaling_curve(run.scaling, "scaling")
    # Safe: to_svg escapes what it is given, and matplotlib escapes the text that it draws.
    return {name: Markup(svg) for name, svg in made.items()}


def _versions(states: list[StageState]) -> list[tuple[str, str]]:
    """(package, version) of all stages; a package that changed in between has several versions."""
    found: dict[str, list[str]] = {}
    for state in states:
        python = {"python": state.manifest["python"]} if "python" in state.manifest else {}
        for package, version in {**python, **state.manifest.get("versions", {})}.items():
            known = found.setdefault(package, [])
            if version not in known:
                known.append(version)
    return [(package, ", then ".join(versions)) for package, versions in found.items()]


def _recorded(state: StageState) -> list[tuple[str, str]]:
    """What the job noted in its completion marker, as (name, text)."""
    return [
        (name.replace("_", " "), _plain_text(value))
        for name, value in state.summary.items()
        if name not in _NOT_FIGURES
    ]


def _plain_text(value: Any) -> str:
    """A recorded value in words: `{"passed": 14, "failed": 2}` is "passed 14, failed 2"."""
    if isinstance(value, dict):
        pairs = (f"{str(name).replace('_', ' ')} {_plain_text(of)}" for name, of in value.items())
        return ", ".join(pairs) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else _figure_text(value)


def _model_name(place: str) -> str:
    """What a model is called, without the folders that it lies in."""
    if re.search(r"(^|/)finetuning-[0-9a-f]+/model$", place):
        return "this run's reward model"
    name = place.removeprefix("builtin:")
    return name if "://" not in name and name.count("/") < 2 else name.rpartition("/")[2]


def _figure_text(value: Any, digits: int = 4) -> str:
    """A number with `digits` significant digits; None and NaN as a dash."""
    if not isinstance(value, int | float) or value != value:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"
