"""Plots of the studies: curves over sizes, radar, map, divergences. Each returns one inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codepmp_ray.analysis import svg
from codepmp_ray.analysis.curves import Curve
from codepmp_ray.analysis.sample_efficiency import Multiple
from codepmp_ray.analysis.scaling_laws import ScalingVerdict
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


def size_curves(
    curves: Mapping[str, Curve], name: str, xlabel: str, ylabel: str = "accuracy",
    confidence: float = 0.95,
) -> str:  # fmt: skip
    """Means with bands by size, sizes on a log2 axis (Figures 4, 5, 8, 9)."""
    with svg.figure(3.5) as (drawing, axes):
        for (label, curve), style in zip(curves.items(), _styles(len(curves)), strict=True):
            _band(axes, curve.sizes, curve.mean, *curve.limits(confidence), label, style)
        sizes = sorted({size for curve in curves.values() for size in curve.sizes})
        _log_sizes(axes, sizes)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        drawing.legend(loc="outside upper left", ncols=1 if len(curves) > 3 else len(curves))
        return svg.to_svg(drawing, name, f"{ylabel} by {xlabel}")


def multiples_chart(multiples: Sequence[Multiple], name: str) -> str:
    """Equivalent-samples multiple with its interval by size; arrows where nothing was seen."""
    with svg.figure(3.0) as (drawing, axes):
        for item in multiples:
            bounds = item.smallest, item.largest
            low, point, high = (
                float(np.clip(value, *bounds)) for value in (item.low, item.multiple, item.high)
            )
            axes.plot([item.size] * 2, [low, high], color=svg.BLUE, linewidth=1.4)
            for value, end in ((item.low, low), (item.high, high)):
                if value == 0 or np.isinf(value):
                    axes.plot(item.size, end, color=svg.BLUE, marker="v" if value == 0 else "^",
                              markersize=7)  # fmt: skip
            is_seen = 0 < item.multiple < np.inf
            axes.plot(item.size, point, color=svg.BLUE, marker="o", markersize=6,
                      markerfacecolor=svg.BLUE if is_seen else svg.PAPER)  # fmt: skip
        axes.axhline(1, color=svg.GREY, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_yscale("log", base=2)
        bottom, top = axes.get_ylim()
        bottom, top = min(bottom, 0.8), max(top, 1.25)
        exponents = range(int(np.ceil(np.log2(bottom))), int(np.log2(top)) + 1)
        step = -(-len(exponents) // 8)
        ticks = [2.0**exponent for exponent in exponents if exponent % step == 0]  # 1 among them
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_ylim(bottom, top)
        _log_sizes(axes, [item.size for item in multiples])
        axes.set_xlabel("finetuning samples with PMP")
        axes.set_ylabel("times as many without")
        return svg.to_svg(drawing, name, "Equivalent-samples multiple by finetuning samples")


def scaling_laws_chart(curve: Curve, fitted: ScalingVerdict, name: str, xlabel: str) -> str:
    """Measured means with intervals and both laws through them."""
    with svg.figure(3.5) as (drawing, axes):
        low, high = curve.limits(0.95)
        errors = np.maximum([curve.mean - low, high - curve.mean], 0.0)
        axes.errorbar(curve.sizes, curve.mean, errors, fmt="none", color=svg.INK, capsize=3,
                      elinewidth=1.2)  # fmt: skip
        axes.plot(curve.sizes, curve.mean, linestyle="none", marker="o", color=svg.INK,
                  label="measured")  # fmt: skip
        dense = np.geomspace(curve.sizes[0], curve.sizes[-1] * 4, 100)
        laws = (
            ("power law", fitted.power, STYLES[0]),
            ("saturating", fitted.saturating, STYLES[1]),
        )
        for label, law, (color, line, _) in laws:
            if law is not None:
                shown = f"{label}, exponent {law.exponent.mean:.2f}"
                axes.plot(dense, law.accuracy(dense), color=color, linestyle=line, label=shown)
        _log_sizes(axes, curve.sizes.tolist())
        axes.set_xlabel(xlabel)
        axes.set_ylabel("accuracy")
        axes.set_title(f"verdict: {fitted.verdict}", fontsize=10, loc="left")
        drawing.legend(loc="outside upper left", ncols=1)
        return svg.to_svg(drawing, name, f"Scaling laws: {fitted.verdict}")


def by_k_chart(
    ks: Sequence[int], series: Mapping[str, Mapping[str, Sequence[float]]], name: str, ylabel: str
) -> str:
    """Lines over k with bands where a series has `low` and `high`; its values are `mean`."""
    with svg.figure(3.3) as (drawing, axes):
        for (label, found), style in zip(series.items(), _styles(len(series)), strict=True):
            mean = np.array(found["mean"])
            low, high = (np.array(found.get(end, found["mean"])) for end in ("low", "high"))
            _band(axes, np.array(ks, float), mean, low, high, label, style)
        _log_sizes(axes, list(ks))
        axes.set_xlabel("candidates to choose from (k)")
        axes.set_ylabel(ylabel)
        drawing.legend(loc="outside upper left", ncols=1)
        return svg.to_svg(drawing, name, f"{ylabel} by number of candidates")


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


def divergence_chart(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """KL divergences to human text by order of n-grams (Table 16), with intervals."""
    labels = ["human bootstrap", *rows[0]["against_human"]]
    with svg.figure(3.0) as (drawing, axes):
        for place, (label, (color, _, marker)) in enumerate(
            zip(labels, _styles(len(labels)), strict=True)
        ):
            found = [row["human_bootstrap"] if not place else row["against_human"][label]
                     for row in rows]  # fmt: skip
            mean, low, high = (
                np.array([item[key] for item in found]) for key in ("mean", "low", "high")
            )
            x = np.arange(len(rows)) + 0.14 * (place - (len(labels) - 1) / 2)
            axes.errorbar(x, mean, np.maximum([mean - low, high - mean], 0), color=color,
                          linestyle="none", marker=marker, markerfacecolor=svg.PAPER, capsize=3,
                          label=label)  # fmt: skip
        axes.set_xticks(range(len(rows)), [f"{row['order']}-grams" for row in rows])
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("KL divergence (nats)")
        axes.grid(axis="x", visible=False)
        drawing.legend(loc="outside upper left", ncols=len(labels))
        return svg.to_svg(drawing, name, "KL divergence of n-grams to human text")


def bucket_chart(table: Mapping[str, Any], order: int, name: str) -> str:
    """Shares of n-grams by hash bucket, largest first (Figures 10, 11); flat is 1 %."""
    with svg.figure(2.8) as (drawing, axes):
        sources = table["sources"]
        for (label, found), (color, line, _) in zip(
            sources.items(), _styles(len(sources)), strict=True
        ):
            shares = 100 * np.sort(found[str(order)]["bucket_shares"])[::-1]
            axes.step(range(1, len(shares) + 1), shares, color=color, linestyle=line, label=label)
        axes.set_xlabel("bucket, the fullest first")
        axes.set_ylabel(f"% of {order}-grams")
        axes.set_ylim(bottom=0)
        drawing.legend(loc="outside upper left", ncols=len(sources))
        return svg.to_svg(drawing, name, f"Shares of {order}-grams by hash bucket")


def _band(
    axes: Any, x: Floats, mean: Floats, low: Floats, high: Floats, label: str,
    style: tuple[str, Any, str],
) -> None:  # fmt: skip
    from matplotlib.colors import to_rgb

    color, line, marker = style
    axes.fill_between(x, low, high, facecolor=(*to_rgb(color), 0.13), linewidth=0)
    axes.plot(x, mean, color=color, linestyle=line, marker=marker, markerfacecolor=svg.PAPER,
              label=label)  # fmt: skip


def _log_sizes(axes: Any, sizes: Sequence[float]) -> None:
    """A log2 axis with the sizes as ticks, thinned where they would touch."""
    axes.set_xscale("log", base=2)
    step = -(-len(sizes) // 9)
    shown = list(sizes)[::step]
    axes.set_xticks(shown, [f"{size:,.0f}" for size in shown])
    axes.minorticks_off()
    if any(size >= 10_000 for size in shown) or len(shown) > 7:
        axes.tick_params(axis="x", rotation=45)


def _styles(num: int) -> list[tuple[str, Any, str]]:
    """No two alike: twelve markers, and dashes with marker unique among 72."""
    markers = [*(marker for _, _, marker in STYLES), *_MORE_MARKERS]
    found = []
    for index in range(num):
        color, line, _ = STYLES[index % len(STYLES)]
        found.append((color, line, markers[(index + index // len(markers)) % len(markers)]))
    return found
