"""The page about a set's diversity, and beside it every number of the page as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from codepmp_ray import __version__
from codepmp_ray.analysis import paper, svg
from codepmp_ray.analysis.diversity import NUM_BUCKETS, ORDERS, TEXTS, measure_diversity
from codepmp_ray.analysis.plots import bars_chart
from codepmp_ray.analysis.report import report_environment
from codepmp_ray.analysis.text import visible
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.json_records import record_bytes
from codepmp_ray.runs import Stage, open_stage

PAGE, NUMBERS = "diversity.html", "diversity.json"
_MAX_BARS = 10
_STYLES = {
    "description": (svg.GREEN, (0, (1, 1.2))),
    "chosen": (svg.BLUE, "-"),
    "rejected": (svg.ORANGE, (0, (4, 2))),
}


def write_diversity(recipe: Recipe) -> str:
    """Write both files into the folder of the synthesis stage; returns where the page lies.

    Raises InputError when the stage is not complete.
    """
    stage = open_stage(recipe, "synthesis").require()
    values = measure_diversity(stage)
    stage.store.put(NUMBERS, record_bytes(values, indent=1, ensure_ascii=False))
    stage.store.put(PAGE, render_diversity(values, recipe.name).encode())
    return stage.store.locate(PAGE)


def remove_diversity(stage: Stage) -> None:
    """Remove both files: they tell of rows that the stage has no more."""
    for name in (PAGE, NUMBERS):
        stage.store.delete(name)


def render_diversity(values: dict[str, Any], name: str) -> str:
    """The HTML of `measure_diversity`'s values."""
    template = report_environment().get_template("diversity.html.j2")
    return template.render(
        name=name,
        values=values,
        texts=TEXTS,
        orders=ORDERS,
        max_entropy=float(np.log2(NUM_BUCKETS)),
        figures={name: Markup(drawn) for name, drawn in _figures(values).items()},
        numbers=NUMBERS,
        paper=paper,
        product_version=__version__,
    )


def _figures(values: dict[str, Any]) -> dict[str, str]:
    if not values["sample"]["num_pairs"]:
        return {}
    made = {"lengths": lengths_chart(values["lengths"])}
    if values["likeness"]["histogram"]:
        made["likeness"] = likeness_chart(values["likeness"])
    for name, counted in values["provenance"].items():
        if counted["num_values"] > 1:
            made[name] = values_chart(counted, name)
    return made


def lengths_chart(lengths: dict[str, Any]) -> str:
    """Shares of the three texts by length."""
    with svg.figure() as (drawing, axes):
        for text, (color, style) in _STYLES.items():
            counts = np.array(lengths[text]["counts"])
            axes.stairs(100 * counts / counts.sum(), lengths["edges"], color=color,
                        linestyle=style, linewidth=1.8,
                        label=f"{text}, mean {lengths[text]['mean']:.0f}")  # fmt: skip
        axes.set_xlim(0, lengths["edges"][-1])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel(lengths["unit"])
        axes.set_ylabel("% of texts")
        drawing.legend(loc="outside upper left", ncols=1)
        return svg.to_svg(drawing, "lengths", "Lengths of descriptions and answers")


def likeness_chart(likeness: dict[str, Any]) -> str:
    """How alike two descriptions are; counts on a log scale, since nearly all are unlike."""
    from matplotlib.colors import to_rgb

    with svg.figure() as (drawing, axes):
        counts = np.array(likeness["histogram"]["counts"])
        edges = np.array(likeness["histogram"]["edges"])
        axes.stairs(counts, edges, fill=True, facecolor=(*to_rgb(svg.BLUE), 0.25),
                    edgecolor=svg.BLUE, linewidth=1.2)  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.set_xlim(0, 1)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("similarity of two descriptions")
        axes.set_ylabel("pairs of descriptions")
        return svg.to_svg(drawing, "likeness", "Similarity of descriptions")


def values_chart(counted: Mapping[str, Any], name: str) -> str:
    """The most frequent values of one column, and how many others there are."""
    top = list(counted["top"].items())[:_MAX_BARS]
    num_rest = counted["num_values"] - len(top)
    rest = f", {num_rest:,} more not shown" if num_rest else ""
    rows = [(_short(visible(value)), count) for value, count in top]
    return bars_chart(rows, name, f"Pairs by {name}{rest}")


def _short(label: str, max_chars: int = 28) -> str:
    """The end of a label: of repositories the part that tells them apart."""
    return label if len(label) <= max_chars else f"\u2026{label[1 - max_chars :]}"
