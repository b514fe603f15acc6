"""The report of studies: JSON for machines, one HTML page without external assets, Markdown."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from codepmp_ray import __version__
from codepmp_ray.analysis.report import report_environment
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.redaction import redacted, redacted_values
from codepmp_ray.studies import paper, verdicts
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.markdown import overview_text, study_text, to_markdown
from codepmp_ray.studies.outcome import Outcome, Plot
from codepmp_ray.studies.plots import draw, draw_forest
from codepmp_ray.versions import git_commit, installed_versions

Values = dict[str, Any]
_CAPTIONS = {
    "curves": ". Bands, where there are any, are 95 % intervals.",
    "bars": ". Lines at the ends are 95 % intervals; hatched: the paper's.",
    "points": ".",
    "radar": ". The rim is the largest value.",
}


def summary_of(bench: Bench, records: list[Values], command: str) -> Values:
    """Everything that the report says, as JSON values."""
    return judged_values(
        {
            "name": bench.config.name,
            "paper": paper.SOURCE,
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": redacted(command),
            "commit": git_commit(),
            "versions": {"codepmp-ray": __version__, **installed_versions()},
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "models": model_sizes(bench),
            "sets": redacted_values(bench.origins()),
            "config": redacted_values(bench.config.model_dump(mode="json")),
            "spent_s": sum(record["spent_s"] for record in records),
            "studies": records,
        }
    )


def judged_values(values: Values) -> Values:
    """`values` with the verdicts and sentences of the rules of today; the figures stay."""
    outcomes = [Outcome.from_json(record["outcome"]) for record in values["studies"]]
    judged = verdicts.judge(outcomes, values["config"]["confidence"])
    return values | {
        "headline": verdicts.headline(judged),
        "num_comparisons": judged.num_comparisons,
        "num_results": judged.num_results,
        "num_beyond_chance": judged.num_beyond_chance,
        "studies": [
            record | {"outcome": o.to_json(), "concluded": verdicts.conclude(o.comparisons)}
            for record, o in zip(values["studies"], judged.outcomes, strict=True)
        ],
    }


def model_sizes(bench: Bench) -> Values:
    """Of every model that was trained: parameters, and what it is."""
    from codepmp_ray.studies.cost import training_records
    from codepmp_ray.studies.trend_model import num_parameters

    used = {record["base"] for record in training_records(bench).values()}
    found = {}
    for name in sorted(used & set(bench.config.models)):
        shape = bench.config.models[name]
        folder = bench.weights(name)
        weights = folder if shape.weights else f"random {shape.architecture}"
        found[name] = {"num_parameters": num_parameters(folder), "weights": weights}
    return found


def write_reports(bench: Bench, records: list[Values], name: str, command: str = "") -> str:
    """Write NAME.json, NAME.html and NAME.md into `reports/`; where the page lies."""
    values = write_numbers(bench, records, name, command)
    store = bench.store
    store.put(f"reports/{name}.html", render(values).encode())
    drawing = forest_of(values, standalone=True)
    if drawing:
        store.put(f"reports/{name}.svg", drawing.encode())
    text = to_markdown(values, f"{name}.svg" if drawing else "")
    store.put(f"reports/{name}.md", text.encode())
    return store.locate(f"reports/{name}.html")


def write_document(bench: Bench, name: str, file: Path) -> None:
    """The Markdown of the report at `file`; its figure and its numbers lie beside it."""
    values = read_record(bench.store.read_bytes(f"reports/{name}.json"))
    document(values, file)
    file.with_suffix(".json").write_bytes(record_bytes(values, indent=1, ensure_ascii=False))


def document(values: Values, file: Path) -> None:
    """The Markdown of a report's numbers at `file`, by the rules of today, and its figure."""
    values = judged_values(values)
    drawing = file.with_suffix(".svg")
    if text := forest_of(values, standalone=True):
        drawing.write_text(text, encoding="utf-8")
    file.write_text(to_markdown(values, drawing.name if text else ""), encoding="utf-8")


def write_numbers(bench: Bench, records: list[Values], name: str, command: str = "") -> Values:
    """Write NAME.json alone, which takes no drawing; what it says."""
    values = summary_of(bench, records, command or _command())
    text = record_bytes(values, indent=1, ensure_ascii=False)
    bench.store.put(f"reports/{name}.json", text)
    return values


def render(values: Values) -> str:
    """The page of `summary_of`'s values."""
    environment = report_environment(Path(__file__).parent / "templates")
    studies = [
        {
            **record,
            "outcome": (outcome := Outcome.from_json(record["outcome"])),
            "figures": [
                _drawn(plot, f"{record['name']}-{i}") for i, plot in enumerate(outcome.plots)
            ],
        }
        for record in values["studies"]
    ]
    template = environment.get_template("reproduction.html.j2")
    forest = Markup(forest_of(values))
    return template.render(values=values, studies=studies, captions=_CAPTIONS, forest=forest)


def forest_of(values: Values, standalone: bool = False) -> str:
    """All differences between models with and without PMP, the paper's as marks; one `<svg>`."""
    rows = [
        (f"{record['place']}: {comparison.question}", comparison)
        for record in values["studies"]
        for comparison in Outcome.from_json(record["outcome"]).comparisons
        if comparison.about == "pmp"
    ]
    return draw_forest(rows, "forest", standalone) if rows else ""


def _drawn(plot: Plot, name: str) -> Markup:
    """The figure, or what was wrong with it: one figure must not cost the page."""
    try:
        return Markup(draw(plot, name))
    except Exception as error:  # noqa: BLE001 - drawing raises what it likes
        text = f"{plot.title} could not be drawn ({type(error).__name__}: {error})."
        return Markup("<p>{}</p>").format(text)


def print_study(record: Values, console: Console | None = None) -> None:
    """The outcome on a terminal, as the document has it, by its own comparisons alone."""
    (judged,) = judged_values({"config": {"confidence": 0.95}, "studies": [record]})["studies"]
    _print(study_text(judged), console)


def print_overview(records: list[Values], console: Console | None = None) -> None:
    """One line for each study."""
    values = judged_values({"config": {"confidence": 0.95}, "studies": records})
    _print(overview_text(values), console)


def _print(text: str, console: Console | None) -> None:
    (console or Console()).print(Text(text), soft_wrap=True)


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    head = f"python -m {spec.name}" if spec else Path(sys.argv[0]).name
    # Where the document lies on this machine is nothing to put into it.
    given = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join([head, *given])
