"""The report's plots. Each returns one inline SVG element, readable without colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.analysis import svg
from codepmp_ray.analysis.closing import LABELS, Rule
from codepmp_ray.analysis.lengths import Lengths, wilson_interval
from codepmp_ray.analysis.scaling import ScalingPoint
from codepmp_ray.analysis.text import visible
from codepmp_ray.analysis.trainlog import Metrics, number, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 400
_NUM_BINS = 24
# Series of the best-of-N curve: colour, line style, marker.
_BON_STYLES = {
    "reward_model": (svg.BLUE, "-", "o"),
    "random": (svg.GREY, (0, (4, 2)), "s"),
    "majority": (svg.PURPLE, (0, (6, 1.5, 1, 1.5)), "D"),
    "length": (svg.ORANGE, (0, (3, 1.5, 1, 1.5)), "v"),
    "shortest": (svg.ORANGE, (0, (2, 1)), "<"),
    "style": (svg.ORANGE, (0, (5, 1)), ">"),
    "oracle": (svg.GREEN, (0, (1, 1.2)), "^"),
}
_BAR_HEIGHT_IN = 0.27


def series_label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def series_order(names: Mapping[str, Any]) -> list[str]:
    """Known series first, in the order of the legend."""
    return [n for n in _BON_STYLES if n in names] + [n for n in names if n not in _BON_STYLES]


def loss_curve(steps: list[Metrics], evals: list[Metrics], name: str) -> str:
    """Training loss and its parts by optimizer step, with the held-out loss as markers."""
    with svg.figure() as (drawing, axes):
        lines = [
            ("loss", "total", svg.INK, "-"),
            ("loss_rm", "reward (RM)", svg.BLUE, (0, (4, 2))),
            ("loss_lm", "language (LM)", svg.ORANGE, (0, (1, 1.2))),
        ]
        total, reward = series(steps, "loss"), series(steps, "loss_rm")
        if np.allclose(total, reward, equal_nan=True):
            lines = [("loss_rm", "reward (RM)", svg.BLUE, "-")]
        for column, label, color, style in lines:
            values = series(steps, column)
            if not np.isnan(values).all():
                _line(axes, steps, values, label, color, style)
        for column, label in (("eval_loss_rm", "RM, held out"), ("eval_loss", "held out")):
            held_out = series(evals, column)
            if not np.isnan(held_out).all():
                _marks(axes, evals, held_out, label)
                break
        _finish(axes, "loss (nats)")
        return svg.to_svg(drawing, name, "Training loss by optimizer step")


def accuracy_curve(steps: list[Metrics], evals: list[Metrics], name: str) -> str:
    """Share of pairs whose chosen side scores higher, by optimizer step; 0.5 is guessing."""
    with svg.figure() as (drawing, axes):
        axes.axhline(0.5, color=svg.GREY, linewidth=1, linestyle=(0, (1, 2)), label="guessing")
        _line(axes, steps, series(steps, "accuracy"), "training batches", svg.BLUE, "-")
        held_out = series(evals, "eval_accuracy")
        if not np.isnan(held_out).all():
            _marks(axes, evals, held_out, "held out", [_wilson_error(row) for row in evals])
        axes.set_ylim(-0.03, 1.03)
        _finish(axes, "accuracy")
        return svg.to_svg(drawing, name, "Pair accuracy by optimizer step")


def learning_rate_curve(steps: list[Metrics], name: str) -> str:
    with svg.figure(2.3) as (drawing, axes):
        _line(axes, steps, series(steps, "learning_rate"), "", svg.INK, "-")
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
        _finish(axes, "learning rate", legend=False)
        return svg.to_svg(drawing, name, "Learning rate by optimizer step")


def length_histogram(chosen: Lengths, rejected: Lengths, name: str, unit: str = "tokens") -> str:
    """Distribution of the answers' lengths in `unit`; the lines mark the two means."""
    from matplotlib.ticker import MaxNLocator

    with svg.figure() as (drawing, axes):
        top = max(int(chosen.max(initial=1)), int(rejected.max(initial=1)))
        edges = np.linspace(0, top, min(_NUM_BINS, top) + 1)
        sides = [
            ("chosen", chosen, svg.BLUE, "-", "", 0.25),
            ("rejected", rejected, svg.ORANGE, (0, (4, 2)), "////", 0.0),
        ]
        for label, lengths, color, style, hatch, alpha in sides:
            counts, _ = np.histogram(lengths, edges)
            rgba = (*_rgb(color), alpha)
            axes.stairs(counts, edges, fill=True, facecolor=rgba, edgecolor=(*_rgb(color), 0.55),
                        hatch=hatch, linewidth=0)  # fmt: skip
            axes.stairs(counts, edges, color=color, linestyle=style, linewidth=1.8, label=label)
            if len(lengths):
                mean = float(lengths.mean())
                axes.axvline(mean, color=color, linestyle=style, linewidth=1,
                             label=f"mean {label}: {mean:.1f}")  # fmt: skip
        axes.set_xlim(0, top)
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        _finish(axes, "pairs", xlabel=f"{unit} per answer")
        return svg.to_svg(drawing, name, "Histogram of answer lengths, chosen and rejected")


def bars_chart(
    counts: Iterable[tuple[str, int]], name: str, title: str, color: str = svg.BLUE
) -> str:
    """(label, count) as bars with their counts, the first on top."""
    rows = list(counts)[::-1]
    with svg.figure(0.6 + _BAR_HEIGHT_IN * max(len(rows), 1)) as (drawing, axes):
        bars = axes.barh(range(len(rows)), [count for _, count in rows], height=0.68,
                         facecolor=(*_rgb(color), 0.3), edgecolor=color, linewidth=1)  # fmt: skip
        axes.bar_label(bars, labels=[f"{count:,}" for _, count in rows], padding=4)
        axes.set_yticks(range(len(rows)), [visible(label) for label, _ in rows], parse_math=False)
        axes.set_xlim(0, max((count for _, count in rows), default=1) * 1.15)
        axes.set_ylim(-0.6, max(len(rows), 1) - 0.4)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in ("bottom", "left"):
            axes.spines[side].set_visible(False)
        return svg.to_svg(drawing, name, title)


def reasons_chart(counts: Mapping[str, int], name: str) -> str:
    """Rejected rows by reason, most frequent on top."""
    rows = [(reason.replace("_", " "), count) for reason, count in counts.items()]
    return bars_chart(rows, name, "Rejected rows by reason", svg.RED)


def best_of_n_curve(ks: list[int], curves: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Accuracy of the pick among k candidates, k on a log2 axis, with confidence bands."""
    with svg.figure(3.5) as (drawing, axes):
        for series_name in series_order(curves):
            label = series_label(series_name)
            color, style, marker = _BON_STYLES.get(series_name, (svg.RED, "-", "x"))
            curve = curves[series_name]
            low, high = _values(curve.get("low"), ks), _values(curve.get("high"), ks)
            is_main = series_name == "reward_model"
            axes.fill_between(ks, low, high, facecolor=(*_rgb(color), 0.22 if is_main else 0.09),
                              linewidth=0)  # fmt: skip
            axes.plot(ks, _values(curve.get("accuracy"), ks), color=color, linestyle=style,
                      marker=marker, markerfacecolor=color if is_main else svg.PAPER,
                      linewidth=2.4 if is_main else 1.5, label=label,
                      zorder=4 if is_main else 3)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -0.02), min(top, 1.02))
        _finish(axes, "share of problems solved", xlabel="candidates to choose from (k)")
        return svg.to_svg(drawing, name, "Best-of-N accuracy by number of candidates")


def differences_chart(rules: list[Rule], name: str) -> str:
    """Points against a random pick with their intervals; the oracle, far off, is left out."""
    rows = [rule for rule in rules if rule.difference and rule.name != "oracle"][::-1]
    with svg.figure(0.8 + 0.42 * len(rows)) as (drawing, axes):
        axes.axvline(0, color=svg.INK, linewidth=1)
        for place, rule in enumerate(rows):
            mean, low, high = (100 * value for value in rule.difference or ())
            is_main = rule.name == "reward_model"
            # A bootstrap's percentile interval may lie beside the mean.
            errors = [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]
            color, width, size = (svg.BLUE, 2.4, 7) if is_main else (svg.GREY, 1.4, 5)
            axes.errorbar(mean, place, xerr=errors, fmt="o", capsize=4, color=color,
                          elinewidth=width, markersize=size)  # fmt: skip
        axes.set_yticks(range(len(rows)), [rule.label for rule in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("points against a random pick")
        return svg.to_svg(drawing, name, "Problems solved, against a random pick, with intervals")


def scaling_curve(points: list[ScalingPoint], name: str) -> str:
    """Accuracy by the number of pretraining pairs, on a log axis, with 95 % intervals."""
    measures = [
        ("pretrained, held-out pairs", svg.GREY, (0, (4, 2)), "s", "pretrained"),
        ("reward model, held-out pairs", svg.ORANGE, (0, (3, 1.5, 1, 1.5)), "v", "finetuned"),
        ("best-of-N", svg.BLUE, "-", "o", "best_of_n"),
    ]
    with svg.figure(3.5) as (drawing, axes):
        for label, color, style, marker, attribute in measures:
            found = [(p.num_pairs, getattr(p, attribute)) for p in points]
            known = [(x, m.accuracy, m.low, m.high) for x, m in found if m is not None]
            if not known:
                continue
            x, y, low, high = np.array(known, dtype=np.float64).T
            # A bootstrap's percentile interval may lie beside the mean.
            errors = np.maximum([y - low, high - y], 0.0)
            axes.errorbar(x, y, errors, color=color, linestyle=style, marker=marker,
                          markerfacecolor=svg.PAPER, capsize=3, elinewidth=1.2,
                          label=label)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks([p.num_pairs for p in points], [f"{p.num_pairs:,}" for p in points])
        axes.tick_params(axis="x", rotation=45)
        axes.minorticks_off()
        _finish(axes, "accuracy", xlabel="pretraining pairs")
        return svg.to_svg(drawing, name, "Accuracy by number of pretraining pairs")


def _line(
    axes: Axes,
    rows: list[Metrics],
    values: npt.NDArray[np.float64],
    label: str,
    color: str,
    style: Any,
) -> None:
    x, y = _thinned(series(rows, "step"), values)
    marker = "." if len(x) <= 12 else ""
    axes.plot(x, y, color=color, linestyle=style, label=label, marker=marker)


def _marks(
    axes: Axes,
    rows: list[Metrics],
    values: npt.NDArray[np.float64],
    label: str,
    errors: list[tuple[float, float]] | None = None,
) -> None:
    """Diamonds at `values`; `errors` are distances below and above."""
    x = series(rows, "step")
    if errors is not None:
        axes.errorbar(x, values, np.array(errors).T, fmt="none", ecolor=svg.RED, elinewidth=1.2,
                      capsize=3, zorder=4)  # fmt: skip
    # Two are the ends of the training; more are a curve.
    style, size = ("none", 7) if len(x) <= 2 else ((0, (1, 2)), 5)
    axes.plot(x, values, color=svg.RED, linestyle=style, linewidth=1, marker="D",
              markerfacecolor=svg.PAPER, markeredgewidth=1.6, markersize=size, label=label,
              clip_on=False, zorder=5)  # fmt: skip


def _wilson_error(row: Metrics) -> tuple[float, float]:
    accuracy = number(row, "eval_accuracy")
    low, high = wilson_interval(accuracy, int(number(row, "eval_num_pairs", 0)))
    return max(accuracy - low, 0.0), max(high - accuracy, 0.0)


def _thinned(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """At most MAX_POINTS points, each the mean of equally many neighbours."""
    if len(x) <= MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


def _values(values: Any, ks: list[int]) -> npt.NDArray[np.float64]:
    """`values` as floats, filled up with NaN to one per k."""
    given = [np.nan if value is None else float(value) for value in (values or [])][: len(ks)]
    return np.array(given + [np.nan] * (len(ks) - len(given)))


def _finish(axes: Axes, ylabel: str, xlabel: str = "optimizer step", legend: bool = True) -> None:
    """Axis labels and a legend above the axes, where it never covers a curve."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    left, right = axes.get_xlim()
    if right - left < 1:  # a single step: matplotlib would show fractions of it
        axes.set_xlim(left - 1, right + 1)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        column_pt = 45 + 5.7 * max(map(len, labels), default=0)
        drawing = axes.get_figure(root=True)
        assert drawing is not None, "axes made by svg.figure belong to a figure"
        drawing.legend(handles, labels, loc="outside upper left", columnspacing=1.2,
                       ncols=max(1, int(72 * svg.WIDTH_IN / column_pt)))  # fmt: skip


def _rgb(color: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(color)
