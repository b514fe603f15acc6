"""Plots of the audit's page. Each returns one inline SVG element, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codepmp_ray.analysis import svg
from codepmp_ray.analysis.text import visible

_ROW_IN = 0.25
_MAX_LABEL_CHARS = 26
Values = Mapping[str, Any]


def length_chart(lengths: Values, name: str) -> str:
    """Score above the problem's mean by length: bins with intervals, and some single answers."""
    sides = (("right", svg.BLUE, "-", "o"), ("wrong", svg.ORANGE, (0, (4, 2)), "x"))
    with svg.figure(3.4) as (drawing, axes):
        points = lengths["points"]
        for side, color, style, marker in sides:
            alone = np.array([p[:2] for p in points if p[2] == (side == "right")]).reshape(-1, 2)
            axes.plot(*alone.T, color=color, marker=marker, linestyle="none", markersize=3,
                      markerfacecolor="none", alpha=0.4)  # fmt: skip
            line = lengths["lines"][side]
            if line["length"]:
                axes.fill_between(line["length"], line["low"], line["high"], facecolor=color,
                                  alpha=0.15, linewidth=0)  # fmt: skip
            axes.plot(line["length"], line["score"], color=color, linestyle=style, marker=marker,
                      linewidth=2, label=f"{side} answers")  # fmt: skip
        axes.set_xscale("symlog", linthresh=1)
        _length_ticks(axes, [p[0] for p in points])
        axes.set_xlabel("characters of the answer")
        axes.set_ylabel("score above its problem's mean")
        drawing.legend(loc="outside upper left", ncols=2)
        return svg.to_svg(drawing, name, "Score by length, of right and of wrong answers")


def forest_chart(
    rows: Sequence[tuple[str, Values]], name: str, xlabel: str, limits: Sequence[float] = ()
) -> str:
    """A point with its interval for each row, the first on top; `limits` as dashed lines, and a
    filled point where the interval leaves out zero."""
    with svg.figure(0.9 + _ROW_IN * len(rows)) as (drawing, axes):
        axes.axvline(0, color=svg.GREY, linewidth=1)
        for limit in limits:
            axes.axvline(limit, color=svg.RED, linewidth=1.2, linestyle=(0, (4, 2)))
        for place, (_, figure) in enumerate(reversed(rows)):
            is_clear = figure["low"] > 0 or figure["high"] < 0
            axes.plot([figure["low"], figure["high"]], [place, place], color=svg.BLUE,
                      linewidth=1.6)  # fmt: skip
            axes.plot(figure["mean"], place, color=svg.BLUE, marker="o",
                      markerfacecolor=svg.BLUE if is_clear else svg.PAPER)  # fmt: skip
        labels = [_short(label) for label, _ in reversed(rows)]
        axes.set_yticks(range(len(rows)), labels, parse_math=False)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(xlabel)
        return svg.to_svg(drawing, name, xlabel)


def prior_chart(effects: Mapping[str, Values], name: str) -> str:
    """Each generator's difference among equally right answers by its share of right answers."""
    with svg.figure(3.2) as (drawing, axes):
        axes.axhline(0, color=svg.GREY, linewidth=1)
        for effect in effects.values():
            if (figure := effect["difference"]) is None:
                continue
            x = 100 * effect["share_right"]
            axes.plot([x, x], [figure["low"], figure["high"]], color=svg.GREY, linewidth=0.9)
            axes.plot(x, figure["mean"], color=svg.BLUE, marker="o", markersize=4.5)
        axes.set_xlabel("% of the generator's answers that are right")
        axes.set_ylabel("ranks above equally right answers")
        return svg.to_svg(drawing, name, "Generators: preference by share of right answers")


def best_of_k_chart(optimised: Values, name: str) -> str:
    """Accuracy of the pick by k with its band, its peak, the oracle and a random pick."""
    ks = optimised["ks"]
    gold = {end: [figure[end] for figure in optimised["gold"]] for end in ("mean", "low", "high")}
    with svg.figure(3.4) as (drawing, axes):
        axes.plot(ks, optimised["oracle"], color=svg.GREEN, linestyle=(0, (1, 1.2)), marker="^",
                  markerfacecolor=svg.PAPER, label="oracle")  # fmt: skip
        axes.fill_between(ks, gold["low"], gold["high"], facecolor=svg.BLUE, alpha=0.18,
                          linewidth=0)  # fmt: skip
        axes.plot(ks, gold["mean"], color=svg.BLUE, marker="o", linewidth=2.3, label="by reward")
        axes.axhline(optimised["random"], color=svg.GREY, linestyle=(0, (4, 2)), linewidth=1.4,
                     label="random")  # fmt: skip
        peak = ks.index(optimised["peak_k"])
        axes.plot(optimised["peak_k"], gold["mean"][peak], color=svg.INK, marker="D",
                  markersize=10, markerfacecolor="none", markeredgewidth=1.6, linestyle="none",
                  label=f"peak, k = {optimised['peak_k']}")  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_xlabel("candidates to choose from (k)")
        axes.set_ylabel("share of problems solved")
        drawing.legend(loc="outside upper left", ncols=2)
        return svg.to_svg(drawing, name, "Accuracy of the pick by number of candidates")


def _length_ticks(axes: Any, lengths: Sequence[float]) -> None:
    low, high = min(lengths, default=1), max(lengths, default=10)
    axes.set_xlim(max(low * 0.85, 0), max(high * 1.15, 1))
    every = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    ticks = [tick for tick in every if low * 0.85 <= tick <= high * 1.15]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()


def _short(label: str) -> str:
    text = visible(label)
    return text if len(text) <= _MAX_LABEL_CHARS else f"{text[: _MAX_LABEL_CHARS - 1]}\u2026"
