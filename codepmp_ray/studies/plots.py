"""A study's plots as inline SVG, readable without colour.

No two lines of a plot share both dashes and marker: curves take open shapes, baselines strokes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from codepmp_ray.analysis import svg
from codepmp_ray.analysis.text import visible
from codepmp_ray.resampling import Floats
from codepmp_ray.studies.outcome import Comparison, Plot, Series

Style = tuple[str, Any, str]  # colour, dashes, marker
_COLORS = (svg.BLUE, svg.ORANGE, svg.GREEN, svg.PURPLE, svg.RED, svg.INK)
_LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p")
_STROKES = ("x", "+", "1", "2", "3", "4", "*")
_MAX_LEGEND_CHARS = 20  # of a label that leaves room for another one beside it
# Baselines that look alike in every plot.
_KNOWN = ("random", "length", "majority", "oracle", "style", "model prior")
_MAX_MARKERS, _FEW_MARKERS = 40, 8  # more would hide the line


def draw(plot: Plot, name: str) -> str:
    """One `<svg>`. `name` keeps its ids apart from other figures of the page."""
    labels = [series.label for series in plot.series]
    height = 3.1 + 0.16 * max(0, len(labels) - 2)
    if plot.kind == "bars":
        return _bars(plot, name)
    if plot.kind == "radar":
        return _radar(
            list(map(visible, plot.spokes)),
            {visible(s.label): s.y for s in plot.series},
            name,
            plot.title,
        )
    if plot.kind == "points":
        places = {visible(s.label): (s.x, s.y) for s in plot.series}
        return _points(places, name, plot.title, (plot.x_label, plot.y_label))
    with svg.figure(height) as (drawing, axes):
        for series, style in zip(plot.series, line_styles(plot.series), strict=True):
            _curve(axes, plot, series, style)
        if plot.log_x:
            axes.set_xscale("log", base=2)
            ticks = sorted({x for s in plot.series if not s.is_baseline for x in s.x})
            if ticks:
                axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
                axes.tick_params(axis="x", rotation=45 if max(ticks) > 999 else 0)
            axes.minorticks_off()
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(f"{plot.y_label}{' (%)' if plot.unit == 'share' else ''}")
        drawing.legend(loc="outside upper left", ncols=1 if max(map(len, labels)) > 26 else 2)
        return svg.to_svg(drawing, name, plot.title)


def line_styles(series: list[Series]) -> list[Style]:
    """Of each curve and baseline, in their order; dashes with marker are unique among 28."""
    styles: list[Style] = []
    curves, others = count(), count(len(_KNOWN))
    for item in series:
        if not item.is_baseline:
            styles.append(_style(next(curves)))
            continue
        n = _KNOWN.index(item.label) if item.label in _KNOWN else next(others)
        dashed = _LINES[1:]
        styles.append((svg.GREY, dashed[n % len(dashed)], _STROKES[n % len(_STROKES)]))
    return styles


def _style(n: int) -> Style:
    # Five dashes and nine markers have no common factor: no pair returns before 45.
    return _COLORS[n % len(_COLORS)], _LINES[n % len(_LINES)], _MARKERS[n % len(_MARKERS)]


def _curve(axes: Any, plot: Plot, series: Series, style: Style) -> None:
    color, line, marker = style
    y = _shown(plot, series.y)
    looks: dict[str, Any] = {"markerfacecolor": svg.PAPER}
    if series.is_baseline:
        looks = {"linewidth": 1.2, "markersize": 5}
    elif series.low and series.high:
        axes.fill_between(series.x, _shown(plot, series.low), _shown(plot, series.high),
                          facecolor=(*to_rgb(color), 0.14), linewidth=0)  # fmt: skip
    most = _FEW_MARKERS if series.is_baseline else _MAX_MARKERS
    if len(y) > most:
        looks["markevery"] = -(-len(y) // _FEW_MARKERS)
    axes.plot(series.x, y, color=color, linestyle=line, marker=marker,
              label=visible(series.label), **looks)  # fmt: skip


def _bars(plot: Plot, name: str) -> str:
    rows = plot.series[::-1]
    with svg.figure(0.7 + 0.34 * len(rows)) as (drawing, axes):
        for index, series in enumerate(rows):
            color = svg.GREY if series.of_paper or series.is_baseline else svg.BLUE
            value = _shown(plot, series.y)[0]
            axes.barh(index, value, height=0.62, facecolor=(*to_rgb(color), 0.3),
                      edgecolor=color, linewidth=1,
                      hatch="////" if series.of_paper else "")  # fmt: skip
            if series.low and series.high:
                low, high = _shown(plot, series.low)[0], _shown(plot, series.high)[0]
                axes.plot([low, high], [index, index], color=svg.INK, linewidth=1.4)
                value = max(value, high)
            text = f" {_shown(plot, series.y)[0]:,.1f}"
            axes.annotate(text, (value, index), va="center", fontsize=9)
        axes.set_yticks(range(len(rows)), [visible(s.label) for s in rows], parse_math=False)
        axes.set_xlabel(plot.x_label)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.16)
        return svg.to_svg(drawing, name, plot.title)


def draw_forest(rows: list[tuple[str, Comparison]], name: str, standalone: bool = False) -> str:
    """A point with its interval for each difference, hollow where it is no result, and the paper's
    as a diamond. `standalone` drawings bring their colours with them."""
    with svg.figure(1.0 + 0.42 * len(rows)) as (drawing, axes):
        axes.axvline(0, color=svg.GREY, linewidth=1)
        labels: dict[str, Any] = {}
        for place, (_, comparison) in enumerate(reversed(rows)):
            found, is_result = comparison.difference, comparison.p_value is not None
            if found.low is not None and found.high is not None:
                axes.plot([100 * found.low, 100 * found.high], [place] * 2, color=svg.BLUE,
                          linewidth=1.6)  # fmt: skip
            kind = "a result" if is_result else "no result: too few trainings"
            face = svg.BLUE if is_result else svg.PAPER
            (labels[kind],) = axes.plot(100 * found.mean, place, color=svg.BLUE, marker="o",
                                        markerfacecolor=face, linestyle="none")  # fmt: skip
            if comparison.paper_difference is not None:
                (labels["the paper"],) = axes.plot(
                    100 * comparison.paper_difference, place, color=svg.ORANGE, marker="D",
                    markerfacecolor=svg.PAPER, linestyle="none",
                )  # fmt: skip
        texts = ["\n".join(wrap(visible(label), 38)[:3]) for label, _ in reversed(rows)]
        axes.set_yticks(range(len(rows)), texts, parse_math=False, fontsize=7)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("with PMP minus without, points")
        drawing.legend(labels.values(), labels, loc="outside upper left", ncols=2)
        text = svg.to_svg(drawing, name, "Differences between models with and without PMP")
        return svg.standalone(text) if standalone else text


def _radar(
    labels: Sequence[str], values: Mapping[str, Sequence[float]], name: str, title: str
) -> str:
    """Shares of each source by label, on spokes from 0 to the largest (Figure 13)."""
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(labels)) / len(labels)
    spokes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    arrays = {label: np.array(value, float) for label, value in values.items()}
    top = max(float(max(value.max() for value in arrays.values())), 1e-9)
    with svg.figure(3.8) as (drawing, axes):
        _rings(axes, angles, spokes, top)
        for spoke, label in zip(spokes, labels, strict=True):
            axes.plot([0, spoke[0]], [0, spoke[1]], color=svg.GRID, linewidth=0.8)
            side = "center" if abs(spoke[0]) < 0.2 else "left" if spoke[0] > 0 else "right"
            axes.text(1.08 * spoke[0], 1.08 * spoke[1], label, ha=side, va="center", fontsize=9)
        for n, (label, value) in enumerate(arrays.items()):
            color, line, marker = _style(n)
            shape = np.concatenate([spokes * value[:, None], spokes[:1] * value[0]]) / top
            axes.plot(*shape.T, color=color, linestyle=line, marker=marker, label=label,
                      markerfacecolor=svg.PAPER)  # fmt: skip
        axes.set_xlim(-1.75, 1.75)
        axes.set_ylim(-1.25, 1.25)
        axes.set_aspect("equal")
        axes.set_axis_off()
        is_long = max(map(len, arrays)) > _MAX_LEGEND_CHARS
        drawing.legend(loc="outside upper left", ncols=1 if is_long else 2)
        return svg.to_svg(drawing, name, title)


def _rings(axes: Any, angles: Floats, spokes: Floats, top: float) -> None:
    """The web behind a radar, and what two of its rings stand for."""
    for share in (0.25, 0.5, 0.75, 1.0):
        ring = np.concatenate([spokes, spokes[:1]]) * share
        axes.plot(*ring.T, color=svg.GRID, linewidth=0.8)
        if share in (0.5, 1.0):
            between = angles[0] - np.pi / len(angles)  # of two spokes, where no label is
            radius = share * np.cos(np.pi / len(angles))
            place = radius * np.cos(between), radius * np.sin(between)
            axes.text(*place, f"{100 * share * top:.0f} %", fontsize=8)


def _points(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    name: str,
    title: str,
    axis_labels: tuple[str, str],
) -> str:
    """Points of each source in the plane (Figure 12)."""
    with svg.figure(3.6) as (drawing, axes):
        for n, (label, (x, y)) in enumerate(points.items()):
            color, _, marker = _style(n)
            axes.scatter(x, y, s=10, marker=marker, linewidths=0.6, label=label,
                         facecolors="none", edgecolors=color)  # fmt: skip
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        axes.set_xticks([])
        axes.set_yticks([])
        drawing.legend(loc="outside upper left", ncols=min(len(points), 3))
        return svg.to_svg(drawing, name, title)


def _shown(plot: Plot, values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float) * (100 if plot.unit == "share" else 1)
