"""docs/results/evidence.md: one page of the experiment, from its record and what was registered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from codepmp_ray.analysis.text import markdown_cell, markdown_table
from codepmp_ray.errors import InputError
from codepmp_ray.json_records import record_bytes
from codepmp_ray.studies.kept import TEXTS, Kept
from codepmp_ray.studies.markdown import table_text
from codepmp_ray.studies.outcome import Comparison, Outcome, Value
from codepmp_ray.studies.plots import draw_forest

_COMPARISONS = TypeAdapter(list[Comparison])
_HEADINGS = ("difference", "in points", "80 % power at")


def write(kept: Kept, record: dict[str, Any], file: Path) -> None:
    """The page at `file`, its figure and its numbers beside it.

    Raises InputError where there is nothing to tell yet: no seeds, or nothing registered.
    """
    outcome = Outcome.from_json(record["outcome"])
    if not kept.registered or not kept.seeds:
        raise InputError(
            "No seed has been run of a registered experiment, so there is no page.",
            "Without --docs the command says where it stands.",
        )
    drawing = ""
    if outcome.comparisons:
        drawing = file.with_suffix(".svg").name
        text = draw_forest(_rows(outcome), "evidence", standalone=True)
        file.with_suffix(".svg").write_text(text, encoding="utf-8")
    file.write_text(to_markdown(kept, record, drawing), encoding="utf-8")
    numbers = {"registered": kept.registered, "record": record}
    file.with_suffix(".json").write_bytes(record_bytes(numbers, indent=1, ensure_ascii=False))


def to_markdown(kept: Kept, record: dict[str, Any], drawing: str = "") -> str:
    """The page; `drawing` is the name of its figure."""
    outcome, registered = Outcome.from_json(record["outcome"]), kept.registered
    parts = [
        "# Evidence",
        "",
        record["question"],
        "",
        f"**{outcome.summary}** {outcome.remedy}".strip(),
        "",
        "Written by `codepmp paper run evidence` from kept scores; do not edit. Values are in per "
        "cent, with 95 % intervals over pairs and over trainings.",
        "",
    ]
    if drawing:
        parts += [f"![Differences, of all seeds together and of each]({drawing})", ""]
        rows = [
            (markdown_cell(c.question), c.difference_text.partition(", p")[0], c.power_text)
            for c in _secondary(outcome)
        ]
        (primary,) = outcome.comparisons
        rows.insert(0, (f"**{primary.question}**", primary.difference_text, primary.power_text))
        parts += [markdown_table(_HEADINGS, rows), ""]
        parts += ["The first is the primary comparison, and the only one that is tested.", ""]
    parts += ["## Registered", "", f"On {registered['registered']}, before any seed.", ""]
    parts += [f"- **{name.replace('_', ' ').capitalize()}.** {registered[name]}" for name in TEXTS]
    parts += ["", "## Deviations", ""]
    parts += [f"- {text}" for text in (*kept.deviations, *_deviations(kept, outcome))] or ["None."]
    parts += ["", "## Figures", ""]
    for table in outcome.tables:
        parts += [table_text(table), ""]
    parts += ["## Reviewer's checklist", ""]
    parts.append(markdown_table(("asked", "found"), list(_checklist(kept, outcome))))
    parts += ["", "## Made", ""]
    parts += [f"- {text}" for text in _made(outcome)]
    parts += [f"- {text}" for text in (*outcome.differs, *outcome.notes)]
    return "\n".join(parts) + "\n"


def _secondary(outcome: Outcome) -> list[Comparison]:
    return _COMPARISONS.validate_python(outcome.facts.get("secondary", []))


def _rows(outcome: Outcome) -> list[tuple[str, Comparison]]:
    """All differences, and that of each seed, which is no result."""
    every = [*outcome.comparisons, *_secondary(outcome)]
    of_seeds = [
        Comparison(f"seed {seed}", Value(gap), None, None, 1, every[0].num_problems)
        for seed, gap in outcome.facts["by_seed"].items()
    ]
    return [(comparison.question, comparison) for comparison in (*every, *of_seeds)]


def _deviations(kept: Kept, outcome: Outcome) -> Iterator[str]:
    """What can be seen in the kept files."""
    num, planned = outcome.facts["num_seeds"], outcome.facts["planned_seeds"]
    if num < planned:
        yield f"{num} of {planned} seeds are there."
    for name in ("hardware", "commit"):
        found = sorted({str(made[name]) for made in outcome.facts["made"]})
        if len(found) > 1:
            yield f"Seeds were run with more than one {name}: {', '.join(found)}."


def _made(outcome: Outcome) -> Iterator[str]:
    for name in ("hardware", "commit"):
        found = dict.fromkeys(str(made[name]) for made in outcome.facts["made"])
        yield f"{name.capitalize()}: {', '.join(found)}"
    dates = sorted(made["date"] for made in outcome.facts["made"])
    yield f"From {dates[0]} to {dates[-1]}"


def _checklist(kept: Kept, outcome: Outcome) -> Iterator[tuple[str, str]]:
    accuracy, _, checks = outcome.tables
    cells = {row[0]: row[1] for table in (accuracy, checks) for row in table.cells}

    def told(names: list[str]) -> str:
        return "; ".join(f"{name} {cells[name]}" for name in names)

    num, planned = outcome.facts["num_seeds"], outcome.facts["planned_seeds"]
    yield "Seeds", f"{num} of {planned}, paired: same pairs, order and draws; named beforehand"
    yield "Nulls", told([name for name in cells if name.startswith("rule: ")])
    worse = kept.common["from_worse"]
    yield (
        "Confounders",
        f"{sum(worse)} of {len(worse)} test pairs have the right solution from the writer that is "
        "right less often, and both directions weigh alike; reversed labels see the same texts in "
        "the same order",
    )
    yield "Multiplicity", "one primary comparison, one test; all others are untested differences"
    yield "Manipulation", told([row[0] for row in checks.cells])
    spread = outcome.facts["spread"]["finetuned"]
    over = spread["sd_trainings"]
    seen = "not known" if over is None else f"{100 * over:.1f} points"
    detectable = [c.power_text for c in outcome.comparisons]
    yield (
        "Power",
        f"expected: {markdown_cell(kept.registered['power'])} Found: a difference's standard "
        f"deviation over seeds is {seen}; 80 % at {detectable[0] if detectable else 'no test'}",
    )
