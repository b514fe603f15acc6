"""audit.html: the gate with its limits, and what stands behind each check, in plots and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from codepmp_ray import __version__
from codepmp_ray.analysis.report import report_environment
from codepmp_ray.analysis.text import ranged, terminal_table
from codepmp_ray.evaluation.audit import plots

_MAX_ROWS = 24
_MIN_PAIRS = 10  # of an edit that is drawn: the interval of fewer would hide all others
CHOICE_WORDS = {
    "same": "of one generator",
    "across": "of two generators",
    "with_prior": "of two, the right one from the generator that is right more often",
    "against_prior": "of two, the right one from the generator that is right less often",
}
Values = Mapping[str, Any]
Rows = list[tuple[str, Values]]


def render_audit(results: Values) -> str:
    """The HTML of audit.json's values. It loads nothing from anywhere."""
    environment = report_environment(Path(__file__).parent / "templates")
    environment.filters |= {"ranged": ranged}
    limits = results["manifest"]["recipe"]["audit"]
    pools = [
        {"numbers": pool, "figures": _drawn(pool_figures(pool, f"pool{number}"))}
        for number, pool in enumerate(results["pools"])
    ]
    return environment.get_template("audit.html.j2").render(
        results=results,
        figures=_drawn(_figures(results, limits)),
        pools=pools,
        choice_words=CHOICE_WORDS,
        product_version=__version__,
    )


def _drawn(figures: Mapping[str, str]) -> dict[str, Markup]:
    # Safe: to_svg escapes what it is given, and matplotlib escapes the text that it draws.
    return {name: Markup(drawn) for name, drawn in figures.items()}


def _figures(results: Values, limits: Values) -> dict[str, str]:
    made: dict[str, str] = {}
    style = results["style"]["correlations"]
    most = sorted(style.items(), key=lambda item: -abs(item[1]["mean"]))
    made["style"] = plots.forest_chart(
        _words(most), "style", "partial rank correlation with the score"
    )
    for kind, label, limit in (
        ("dressing", "share of pairs gained", "max_dressing_gain"),
        ("spoiling", "share of pairs won", "max_spoiled_wins"),
    ):
        rows = [
            (name, edit["gain"])
            for name, edit in results["edits"].items()
            if edit["kind"] == kind and edit["num_pairs"] >= _MIN_PAIRS
        ]
        if rows:
            made[kind] = plots.forest_chart(_words(rows), kind, label, [limits[limit]])
    made |= _of_texts(results, "pairs")
    return made


def pool_figures(pool: Values, name: str) -> dict[str, str]:
    """Plots of one pool by name; those without data are absent."""
    made = _of_texts(pool, name)
    if generators := pool["generators"]:
        rows = extremes(by_difference(generators["effects"]))
        made["generators"] = plots.forest_chart(
            rows, f"{name}-generators", "ranks above equally right answers"
        )
        if generators["prior_correlation"] is not None:
            made["prior"] = plots.prior_chart(generators["effects"], f"{name}-prior")
    if optimised := pool["over_optimisation"]:
        made["best_of_k"] = plots.best_of_k_chart(optimised, f"{name}-best")
    return made


def by_difference(effects: Mapping[str, Values]) -> Rows:
    """(group, its difference), the largest first, without those that were never compared."""
    known = [(n, e["difference"]) for n, e in effects.items() if e["difference"] is not None]
    return sorted(known, key=lambda item: -item[1]["mean"])


def extremes(rows: Rows) -> Rows:
    """At most _MAX_ROWS: those at both ends."""
    if len(rows) <= _MAX_ROWS:
        return rows
    return [*rows[: _MAX_ROWS // 2], *rows[-_MAX_ROWS // 2 :]]


def _of_texts(values: Values, name: str) -> dict[str, str]:
    made: dict[str, str] = {}
    if values["lengths"] is not None:
        made["lengths"] = plots.length_chart(values["lengths"], f"{name}-lengths")
    rows = [
        *((f"script: {n}", d) for n, d in by_difference(values["scripts"] or {})),
        *((f"fence: {n}", d) for n, d in by_difference(values["fences"] or {})),
    ]
    if rows:
        label = "ranks above equally right answers"
        made["languages"] = plots.forest_chart(extremes(rows), f"{name}-languages", label)
    return made


def _words(rows: Sequence[tuple[str, Values]]) -> Rows:
    return [(name.replace("_", " "), figure) for name, figure in rows]


def print_audit(results: dict[str, Any], console: Console | None = None) -> None:
    """Checks of the gate, what was not measured, the verdict, where the page lies.

    Default: standard output.
    """
    screen = console or Console()
    confidence = f"{100 * results['confidence']:g} % interval"
    rows = [
        (
            check["name"],
            f"{check['figure']['mean']:.3f}",
            f"{check['figure']['low']:.3f} to {check['figure']['high']:.3f}",
            f"{check['rule']} {check['limit']:g}",
            ("kept" if check["passed"] else "broken")
            + ("" if check["is_sure"] else ", not surely"),
        )
        for check in results["gate"]["checks"]
    ]
    headings = ("check", "figure", confidence, "limit", "")
    title = f"Audit on {results['num_pairs']:,} pairs"
    screen.print(terminal_table(title, headings, rows, left=(0, 4)))
    if missing := results["gate"]["not_measured"]:
        screen.print(f"Not measured: {', '.join(missing)}.")
    screen.print("The model passes." if results["passed"] else "The model does not pass.")
    screen.print(results["page"], soft_wrap=True, highlight=False)
