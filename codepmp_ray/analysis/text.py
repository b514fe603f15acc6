"""Text of unknown origin made fit to be shown: in HTML, in Markdown and on a terminal.

Model answers and code files hold anything: NUL, terminal escapes, bidirectional overrides that make
code read differently from what it is, runs of backticks. `visible` is applied to every string that
the report shows; HTML escaping is the template engine's duty.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

# Overrides, embeddings, isolates and marks; and the two separators that count as line ends.
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff"
_HIDDEN = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_BACKTICKS = re.compile("`+")


# Figures of fewer items are shown where they belong, and never in a headline.
MIN_HEADLINE_ITEMS = 30


def visible(text: str) -> str:
    """`text` with control and direction characters spelled out, for example `\\u202e`."""
    unified = text.replace("\r\n", "\n")
    return _HIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", unified)


def shortened(text: str, max_chars: int) -> str:
    """The first `max_chars` characters, followed by how many were left out."""
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}\n... ({len(text) - max_chars:,} more characters)"


def fenced(text: str, language: str = "") -> str:
    """A Markdown code block that no run of backticks in `text` can end."""
    body = visible(text)
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def inline_code(text: str) -> str:
    """Markdown inline code on one line, safe inside a table cell."""
    body = " ".join(visible(text).split()).replace("|", "\\|") or " "
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{ticks}{pad}{body}{pad}{ticks}"


def markdown_cell(text: str) -> str:
    """`text` on one line, safe inside a table."""
    return " ".join(text.split()).replace("|", "\\|")


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Cells have to be safe: numbers, own words, inline code or `markdown_cell`."""

    def line(cells: Iterable[object]) -> str:
        texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        return f"| {' | '.join(texts)} |"

    return "\n".join([line(headings), f"|{'---|' * len(headings)}", *map(line, rows)])


def duration(seconds: float | None) -> str:
    """`75.2` -> `1 min 15 s`; None -> `not recorded`."""
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest_s} s"


def percent(share: float) -> str:
    """`0.6151` -> `61.5 %`; NaN -> `-`."""
    return "-" if share != share else f"{100 * share:.1f}\u00a0%"


def ranged(
    figure: Mapping[str, Any] | None, factor: float = 1.0, digits: int = 3, between: str = " to "
) -> str:
    """`0.120 (0.080 to 0.160)` of mean, low and high; a dash for what was not measured."""
    if figure is None:
        return "-"
    mean, low, high = (f"{factor * figure[end]:.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean} ({low}{between}{high})"


def interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"


def terminal_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Collection[int] = (0,),
) -> Table:
    """A table whose cells are shown as they are; columns are right-aligned but for those `left`."""
    table = Table(title=Text(visible(title)) if title else None, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number in left else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
