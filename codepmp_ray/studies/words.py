"""Numbers of outcomes as text, the same on a terminal, in Markdown and on the page."""

from __future__ import annotations

from codepmp_ray.studies.outcome import Comparison, Outcome, Table, Value


def value_text(value: Value | None, unit: str) -> str:
    """`61.5 (58.0 to 65.0)`, shares in per cent; a dash for none."""
    if value is None or value.mean != value.mean:
        return "-"
    scale, digits = (100, 1) if unit == "share" else (1, _digits(value.mean))
    text = f"{scale * value.mean:,.{digits}f}"
    if value.low is None or value.high is None:
        return text
    return f"{text} ({scale * value.low:,.{digits}f} to {scale * value.high:,.{digits}f})"


def paper_text(value: float | None, unit: str) -> str:
    return "-" if value is None else value_text(Value(value), unit)


def difference_text(comparison: Comparison) -> str:
    """`+1.2 (-0.3 to +2.7), p = 0.11`, in points; the difference alone where it is no result."""
    found = comparison.difference
    text = f"{100 * found.mean:+.1f}"
    if comparison.p_value is None or found.low is None or found.high is None:
        return text
    return (
        f"{text} ({100 * found.low:+.1f} to {100 * found.high:+.1f}), p = {comparison.p_value:.2g}"
    )


def power_text(comparison: Comparison) -> str:
    """What the comparison could have seen."""
    if comparison.detectable is None:
        return "-"
    text = f"{100 * comparison.detectable:.1f} points"
    if comparison.paper_difference is None or comparison.power_for_paper is None:
        return text
    return (
        f"{text}; {100 * comparison.power_for_paper:.0f} % for the paper's "
        f"{100 * comparison.paper_difference:+.1f}"
    )


def place_text(place: str, outcome: Outcome) -> str:
    """The table or figure of the paper; of a stand-in that it is one."""
    return f"In place of {place}" if outcome.is_stand_in else place


def headings(table: Table) -> list[str]:
    """Of the columns after the label: ours where we have any value, then the paper's likewise, then
    the remarks."""
    ours, paper = _columns(table)
    return [
        *(table.columns[i] for i in ours),
        *(f"paper: {table.columns[i]}" for i in paper),
        *([table.remarks] if table.remarks else []),
    ]


def cells(table: Table) -> list[list[str]]:
    """Texts of each row, its label first, under `headings`."""
    ours, paper = _columns(table)
    return [
        [
            row.label,
            *(value_text(row.ours[i], table.unit) for i in ours),
            *(paper_text(row.paper[i], table.unit) for i in paper),
            *([row.remark] if table.remarks else []),
        ]
        for row in table.rows
    ]


def has_paper(table: Table) -> bool:
    """Whether the paper has a value for any cell."""
    return bool(_columns(table)[1])


def _columns(table: Table) -> tuple[list[int], list[int]]:
    """Numbers of the columns in which some row has a value of ours, and of the paper's."""
    numbers = range(len(table.columns))
    ours = [i for i in numbers if any(row.ours[i] is not None for row in table.rows)]
    return ours, [i for i in numbers if any(row.paper[i] is not None for row in table.rows)]


def _digits(value: float) -> int:
    return 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 3
