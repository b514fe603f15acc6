"""Matplotlib figures as inline SVG that follows the page: its font, its colours, light or dark.

Figures are drawn with stand-in colours that are replaced by CSS variables of the page, so that one
drawing serves both colour schemes. Text stays text: it scales, is searchable and can be read aloud.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# 350 points wide: shown at about its natural size on a phone, so its text stays readable there.
WIDTH_IN, HEIGHT_IN = 4.86, 3.1
INK, GRID, PAPER = "#010203", "#010204", "#010205"
BLUE, ORANGE, GREEN, PURPLE, GREY, RED = (f"#01{i}0ff" for i in range(3, 9))
_VARIABLES = {
    INK: "ink", GRID: "grid", PAPER: "paper", BLUE: "blue", ORANGE: "orange", GREEN: "green",
    PURPLE: "purple", GREY: "grey", RED: "red",
}  # fmt: skip
_COLOR = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_FONT = re.compile(r"font-family:[^;\"]*;?\s*")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "codepmp",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 2.8,
}


@contextmanager
def figure(height_in: float = HEIGHT_IN) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure with one set of axes, in the report's style. Needs no display."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield drawing, drawing.subplots()


def to_svg(drawing: Figure, name: str, description: str) -> str:
    """The `<svg>` element. `name` keeps its ids apart from other figures of the page."""
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Both would act on the whole page: matplotlib's style rule is `*{...}`.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = _FONT.sub("", text)
    text = _COLOR.sub(lambda match: f"var(--{_VARIABLES[match.group().lower()]})", text)
    label = html.escape(description, quote=True)
    opening = re.match(r"<svg[^>]*>", text)
    assert opening, "matplotlib writes an svg element"
    view = re.search(r'viewBox="[^"]*"', opening.group())
    box = view.group() if view else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box} role="img" aria-label="{label}">{text[opening.end() :].strip()}'
    )


def standalone(text: str) -> str:
    """The `<svg>` as a file of its own, with the light colours of the page."""
    css = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    colors = css[css.index("{") + 1 : css.index("}")].strip()
    style = f"<style>svg {{{colors} background: var(--paper); font-family: sans-serif;}}</style>"
    at = text.index(">") + 1
    return text[:at] + style + text[at:]
