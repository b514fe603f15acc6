"""docs/reproduction.md: each study's outcome beside the paper's, made from the report's JSON alone.

Paths of the machine do not get into it: the folder of the data is called DATA_DIR, that of a reward
model at hand MODEL.
"""

from __future__ import annotations

from typing import Any

from codepmp_ray.analysis.text import duration
from codepmp_ray.studies import words
from codepmp_ray.studies.outcome import Outcome, Table

HEADER = """# Reproduction

Each table and figure of the paper at the size of a small machine, beside the paper's own values.
Written by `make reproduce` from its JSON; do not edit. [How it works](reproducing.md).

Models and data are thousands of times smaller than the paper's, so most comparisons cannot see an
effect of its size: each says what it could have seen. Values are in per cent, with 95 % intervals
over questions and trainings. Numbers of the paper are of its own models and data, not goals.
"""


def to_markdown(values: dict[str, Any]) -> str:
    """The document of `report.summary_of`'s values."""
    return _without_paths(
        "\n".join((HEADER, _run(values), _overview(values), _studies(values))), values
    )


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
        f"- Comparisons: {values['num_comparisons']} in all; {values['num_beyond_chance']} beyond "
        "chance when their number is counted (Holm)\n"
    )


def _overview(values: dict[str, Any]) -> str:
    lines = ["| study | outcome | time | what came out |", "|---|---|---|---|"]
    for record in values["studies"]:
        outcome = record["outcome"]
        link = f"[{record['place']}](#{_anchor(record)})"
        lines.append(
            f"| {link} | {outcome['status']} | {duration(record['spent_s'])} | "
            f"{_cell(outcome['summary'])} |"
        )
    return "\n".join(lines) + "\n"


def _studies(values: dict[str, Any]) -> str:
    return "\n".join(_study(record) for record in values["studies"])


def _study(record: dict[str, Any]) -> str:
    outcome = Outcome.from_json(record["outcome"])
    parts = [f"## {_heading(record)}", "", record["question"], ""]
    if outcome.summary:
        because = f", because of {outcome.because}" if outcome.because else ""
        text = f"{outcome.summary} {outcome.remedy}".strip()
        parts += [f"**{outcome.status.capitalize()}{because}.** {text}", ""]
    for table in outcome.tables:
        parts += [_table(table), ""]
    if outcome.comparisons:
        parts += ["| comparison | difference in points | verdict | 80 % power at |"]
        parts += ["|---|---|---|---|"]
        parts += [
            f"| {_cell(c.question)} | {words.difference_text(c)} | {c.verdict} | "
            f"{words.power_text(c)} |"
            for c in outcome.comparisons
        ]
        parts += [""]
    if isinstance(paper := outcome.facts.get("paper"), str):
        parts += [f"The paper: {paper}.", ""]
    parts += [f"- {text}" for text in (*outcome.differs, *outcome.notes)]
    return "\n".join(parts) + "\n"


def _table(table: Table) -> str:
    titles = [
        f"{table.title} (paper: {table.paper_source})" if words.has_paper(table) else table.title
    ]
    head = ["", *words.headings(table)]
    lines = [*titles, "", f"| {' | '.join(map(_cell, head))} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in words.cells(table)]
    return "\n".join(lines)


def _heading(record: dict[str, Any]) -> str:
    return f"{record['place']}: {record['title']}"


def _anchor(record: dict[str, Any]) -> str:
    kept = (c for c in _heading(record).lower() if c.isalnum() or c in " -")
    return "".join(kept).replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _without_paths(text: str, values: dict[str, Any]) -> str:
    config = values["config"]
    paths = [(config.get(name), name.upper()) for name in ("data_dir", "run_dir")]
    rewards = config.get("rewards", {}).values()
    paths = [(reward["model_name_or_path"], "MODEL") for reward in rewards] + paths
    for path, name in paths:
        if path and path.startswith("/"):
            text = text.replace(path, name)
    return text
