"""What a study found, as values that go to JSON and come back: tables, plots, comparisons.

Their numbers are the same text on a terminal, in Markdown and on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from codepmp_ray.errors import CodePMPError, InputError, ResourceError

Status = Literal["measured", "partly measured", "not measured", "failed"]
# Why nothing was measured: what it needs is not here, time was up, or something went wrong.
Because = Literal["data", "resources", "time", "error"]
PlotKind = Literal["curves", "bars", "points", "radar"]
Unit = Literal["share", "number"]
About = Literal["pmp", "at hand", "other"]

_MAX_ERROR_CHARS = 300
_UNEXPECTED = "Its traceback lies beside its record in results/; the same command tries it again."


@dataclass(frozen=True)
class Value:
    """An estimate with its interval; `None` limits where there is none (a count, a paper's)."""

    mean: float
    low: float | None = None
    high: float | None = None

    def text(self, unit: Unit) -> str:
        """`61.5 (58.0 to 65.0)`, shares in per cent; a dash for no number."""
        if self.mean != self.mean:
            return "-"
        size = abs(self.mean)
        digits = 1 if unit == "share" or 10 <= size < 1000 else 0 if size >= 1000 else 3
        scale = 100 if unit == "share" else 1
        mean, *ends = (
            f"{scale * number:,.{digits}f}"
            for number in (self.mean, self.low, self.high)
            if number is not None
        )
        return f"{mean} ({' to '.join(ends)})" if len(ends) == 2 else mean


@dataclass(frozen=True)
class Row:
    """A line of a table: ours beside the paper's, in the order of the table's columns.

    `remark` is what is said of the line, under the table's heading of remarks.
    """

    label: str
    ours: Sequence[Value | None]
    paper: Sequence[float | None]
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """Attributes:
    columns: headings of the values; each stands twice, for ours and for the paper's.
    paper_source: where the paper's values are from; empty where it has none.
    unit: `share` is shown in per cent, `number` as it is.
    remarks: heading of the rows' remarks; empty where they have none.
    """

    title: str
    columns: list[str]
    rows: list[Row]
    paper_source: str = ""
    unit: Unit = "share"
    remarks: str = ""

    @property
    def headings(self) -> list[str]:
        """Of the columns after the label: ours where we have any value, then the paper's likewise,
        then the remarks."""
        ours, paper = self._shown
        return [
            *(self.columns[i] for i in ours),
            *(f"paper: {self.columns[i]}" for i in paper),
            *([self.remarks] if self.remarks else []),
        ]

    @property
    def cells(self) -> list[list[str]]:
        """Texts of each row, its label first, under `headings`: on a terminal as on the page."""
        ours, paper = self._shown
        return [
            [
                row.label,
                *(_text(row.ours[i], self.unit) for i in ours),
                *(_text(None if (x := row.paper[i]) is None else Value(x), self.unit)
                  for i in paper),
                *([row.remark] if self.remarks else []),
            ]
            for row in self.rows
        ]  # fmt: skip

    @property
    def has_paper(self) -> bool:
        """Whether the paper has a value for any cell."""
        return bool(self._shown[1])

    @property
    def _shown(self) -> tuple[list[int], list[int]]:
        """Numbers of the columns in which some row has a value of ours, and of the paper's."""
        numbers = range(len(self.columns))
        ours = [i for i in numbers if any(row.ours[i] is not None for row in self.rows)]
        return ours, [i for i in numbers if any(row.paper[i] is not None for row in self.rows)]


@dataclass(frozen=True)
class Series:
    """A curve. `of_paper` ones are drawn apart, for they are of other models and data."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    of_paper: bool = False
    is_baseline: bool = False


@dataclass(frozen=True)
class Plot:
    """Attributes:
    kind: `bars` have one value per series and no horizontal axis, `points` are not joined, a
        `radar` has a spoke for each of `spokes` and a value on each.
    """

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = True
    unit: Unit = "share"
    kind: PlotKind = "curves"
    spokes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """One question that a study asks: is the first better than the second?

    Attributes:
        difference: first minus second, with its interval.
        p_value: two-sided, of "no difference"; None where too few trainings make no result.
        detectable: the smallest true difference that would have been seen with 80 % power.
        num_seeds / num_problems: trainings of an arm, none where both are at hand; problems.
        paper_difference: what the paper found, where it asked the same.
        power_for_paper: chance to see a difference of that size with our data.
        about: PMP against none, a model at hand, or something else.
        told: what is said beside the verdict where it is higher or lower.
        verdict: by all comparisons of a report together (studies.verdicts).
    """

    question: str
    difference: Value
    p_value: float | None
    detectable: float | None
    num_seeds: int
    num_problems: int
    paper_difference: float | None = None
    power_for_paper: float | None = None
    about: About = "other"
    told: str = ""
    verdict: str = ""

    @property
    def difference_text(self) -> str:
        """`+1.2 (-0.3 to +2.7), p = 0.11`, in points; the difference alone if it is no result."""
        found = self.difference
        text = f"{100 * found.mean:+.1f}"
        if self.p_value is None or found.low is None or found.high is None:
            return text
        return f"{text} ({100 * found.low:+.1f} to {100 * found.high:+.1f}), p = {self.p_value:.2g}"

    @property
    def power_text(self) -> str:
        """What the comparison could have seen."""
        if self.detectable is None:
            return "-"
        text = f"{100 * self.detectable:.1f} points"
        if self.paper_difference is None or self.power_for_paper is None:
            return text
        return (
            f"{text}; {100 * self.power_for_paper:.0f} % for the paper's "
            f"{100 * self.paper_difference:+.1f}"
        )


@dataclass
class Outcome:
    """What one study found.

    Attributes:
        summary: what is not a comparison, in one honest sentence or two; of what was not measured,
            the reason.
        stand_ins: what was measured in place of the paper's; empty where its method ran.
        because: what kind of reason that is; `remedy` is what to give or to do.
        differs: what is not as in the paper.
        facts: further figures by name, for the JSON and the page.
    """

    status: Status = "measured"
    summary: str = ""
    because: Because | None = None
    remedy: str = ""
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    stand_ins: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def shown_status(self) -> str:
        """ "Measured" is said where the method of the paper ran."""
        return self.status.replace("measured", "a stand-in") if self.is_stand_in else self.status

    @property
    def is_stand_in(self) -> bool:
        return bool(self.stand_ins) and self.status in ("measured", "partly measured")

    def place(self, place: str) -> str:
        """`place` in the paper; of a stand-in that it is one."""
        return f"In place of {place}" if self.is_stand_in else place

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """The outcome that `to_json` wrote."""
        return TypeAdapter(cls).validate_python(data)


def not_measured(because: Because, reason: str, remedy: str = "") -> Outcome:
    """The outcome of a study that was not run, because of `reason`; `remedy` makes it run."""
    return Outcome(status="not measured", summary=reason, because=because, remedy=remedy)


def of_error(error: Exception) -> Outcome:
    """What an error makes of a study: not measured where something is missing, else failed."""
    if isinstance(error, InputError):
        return not_measured("data", error.problem, error.remedy)
    if isinstance(error, ResourceError):
        return not_measured("resources", error.problem, error.remedy)
    if isinstance(error, CodePMPError):
        return Outcome("failed", error.problem, "error", error.remedy)
    text = " ".join(str(error).split())[:_MAX_ERROR_CHARS]
    return Outcome("failed", f"{type(error).__name__}: {text}", "error", _UNEXPECTED)


def _text(value: Value | None, unit: Unit) -> str:
    return "-" if value is None else value.text(unit)
