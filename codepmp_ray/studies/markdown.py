"""docs/reproduction.md: each study's outcome beside the paper's, made from the report's JSON alone.

Paths of the machine do not get into it: the folder of the data is called DATA_DIR, that of a reward
model at hand MODEL.
"""

from __future__ import annotations

from typing import Any

from codepmp_ray.analysis.text import duration, markdown_cell, markdown_table
from codepmp_ray.studies.outcome import Outcome, Table

TITLE = "# Reproduction"
NOTE = """Written by `make reproduce` from its JSON; do not edit. [How it works](reproducing.md).

Each table and figure of the paper at the size of a small machine. Values are in per cent, with
95 % intervals over questions and, of what was trained here, over trainings; of fewer than three
trainings there is no interval and no verdict. Numbers of the paper are of its own models and data,
not goals.
"""


def to_markdown(values: dict[str, Any], drawing: str = "") -> str:
    """The document of `report.summary_of`'s values; `drawing` is a file with the forest plot."""
    shown = f"![Differences between models with and without PMP]({drawing})\n" if drawing else ""
    parts = (TITLE, "", values["headline"], "", shown, NOTE, values.get("remark", ""), _run(values),
             overview_text(values), _studies(values))  # fmt: skip
    return _without_paths("\n".join(parts), values)


def _run(values: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in values["versions"].items())
    models = "; ".join(
        f"{name}: {found['weights']}, {found['num_parameters'] / 1e6:.1f}M parameters"
        for name, found in values["models"].items()
    )
    return (
        f"- Command: `{values['command']}`\n- Commit: {values['commit'] or 'not known'}\n"
        f"- Written: {values['written']}, on {values['platform']}, Python {values['python']}\n"
        f"- Versions: {versions}\n- Models: {models or 'none trained'}\n"
        f"- Time: {duration(values['spent_s'])}\n"
        f"- Comparisons: {values['num_comparisons']} in all, {values['num_results']} of them "
        f"results; {values['num_beyond_chance']} beyond chance, their number counted (Holm)\n"
    )


def overview_text(values: dict[str, Any]) -> str:
    """A line for each study."""
    rows = []
    for record in values["studies"]:
        outcome = Outcome.from_json(record["outcome"])
        link = f"[{record['place']}](#{_anchor(record, outcome)})"
        told = f"{record['concluded']} {outcome.summary}".strip() or " ".join(outcome.notes[:1])
        rows.append((link, _method(outcome), duration(record["spent_s"]), markdown_cell(told)))
    return markdown_table(("study", "method of the paper", "time", "what came out"), rows) + "\n"


def _method(outcome: Outcome) -> str:
    if outcome.is_stand_in:
        return outcome.shown_status
    return outcome.status.replace("measured", "faithful") if outcome.tables else outcome.status


def _studies(values: dict[str, Any]) -> str:
    return "\n".join(study_text(record) for record in values["studies"])


def study_text(record: dict[str, Any]) -> str:
    """What one study found."""
    outcome = Outcome.from_json(record["outcome"])
    parts = [f"## {_heading(record, outcome)}", "", record["question"], ""]
    because = f", because of {outcome.because}" if outcome.because else ""
    text = " ".join(filter(None, (record["concluded"], outcome.summary, outcome.remedy)))
    parts += [f"**{outcome.shown_status.capitalize()}{because}.** {text}", ""]
    for table in outcome.tables:
        parts += [table_text(table), ""]
    if outcome.comparisons:
        rows = [
            (markdown_cell(c.question), c.difference_text, c.verdict, c.power_text)
            for c in outcome.comparisons
        ]
        headings = ("comparison", "difference in points", "verdict", "80 % power at")
        parts += [markdown_table(headings, rows), ""]
    if isinstance(paper := outcome.facts.get("paper"), str):
        parts += [f"The paper: {paper}.", ""]
    parts += [f"- Stand-in: {text}" for text in outcome.stand_ins]
    parts += [f"- {text}" for text in (*outcome.differs, *outcome.notes)]
    return "\n".join(parts) + "\n"


def table_text(table: Table) -> str:
    """A table under its title."""
    title = f"{table.title} (paper: {table.paper_source})" if table.has_paper else table.title
    head, *rows = [list(map(markdown_cell, row)) for row in (["", *table.headings], *table.cells)]
    return f"{title}\n\n{markdown_table(head, rows)}"


def _heading(record: dict[str, Any], outcome: Outcome) -> str:
    return f"{outcome.place(record['place'])}: {record['title']}"


def _anchor(record: dict[str, Any], outcome: Outcome) -> str:
    kept = (c for c in _heading(record, outcome).lower() if c.isalnum() or c in " -")
    return "".join(kept).replace(" ", "-")


def _without_paths(text: str, values: dict[str, Any]) -> str:
    config = values["config"]
    paths = [(config.get(name), name.upper()) for name in ("data_dir", "run_dir")]
    rewards = config.get("rewards", {}).values()
    paths = [(reward["model_name_or_path"], "MODEL") for reward in rewards] + paths
    for path, name in paths:
        if path and path.startswith("/"):
            text = text.replace(path, name)
    return text
