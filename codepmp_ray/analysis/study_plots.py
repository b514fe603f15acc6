"""A radar and a map of points, as studies draw them. Each returns one inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codepmp_ray.analysis import svg
from codepmp_ray.resampling import Floats

# Told apart by line and marker as well as by colour.
STYLES: list[tuple[str, Any, str]] = [
    (svg.BLUE, "-", "o"),
    (svg.ORANGE, (0, (4, 2)), "s"),
    (svg.GREEN, (0, (1, 1.2)), "^"),
    (svg.PURPLE, (0, (6, 1.5, 1, 1.5)), "D"),
    (svg.RED, (0, (3, 1.5, 1, 1.5)), "v"),
    (svg.GREY, (0, (2, 3)), "x"),
]
_MORE_MARKERS = ("P", "X", "<", ">", "p", "*")
_MAX_LEGEND_CHARS = 20  # of a label that leaves room for another one beside it


def radar_chart(
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
        for (label, value), (color, line, marker) in zip(
            arrays.items(), _styles(len(arrays)), strict=True
        ):
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


def points_chart(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    name: str,
    title: str,
    axis_labels: tuple[str, str],
) -> str:
    """Points of each source in the plane (Figure 12)."""
    with svg.figure(3.6) as (drawing, axes):
        for (label, (x, y)), (color, _, marker) in zip(
            points.items(), _styles(len(points)), strict=True
        ):
            looks: dict[str, Any] = {"facecolors": "none", "edgecolors": color}
            if marker == "x":  # it has no face
                looks = {"color": color}
            axes.scatter(x, y, s=10, marker=marker, linewidths=0.6, label=label, **looks)
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        axes.set_xticks([])
        axes.set_yticks([])
        drawing.legend(loc="outside upper left", ncols=min(len(points), 3))
        return svg.to_svg(drawing, name, title)


def _styles(num: int) -> list[tuple[str, Any, str]]:
    """No two alike: twelve markers, and dashes with marker unique among 72."""
    markers = [*(marker for _, _, marker in STYLES), *_MORE_MARKERS]
    found = []
    for index in range(num):
        color, line, _ = STYLES[index % len(STYLES)]
        found.append((color, line, markers[(index + index // len(markers)) % len(markers)]))
    return found
