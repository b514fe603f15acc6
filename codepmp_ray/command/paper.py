"""`codepmp paper`: the paper's tables and figures."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import command
from codepmp_ray.errors import ConfigError

if TYPE_CHECKING:
    from codepmp_ray.config.studies import StudiesConfig
    from codepmp_ray.studies.study import Study

_Plan = Annotated[
    bool,
    Option(
        "--plan",
        "--dry-run",
        help="Print what would be trained, about how long it takes and what is missing; start "
        "nothing.",
    ),
]
_NEEDS = "Models and sets of the recipe; what is missing is named. --plan needs none of them."
_SECTIONS = ("data_dir", "run_dir", "defaults", "scoring")


@command(
    "paper list",
    settings="",
    needs="Nothing.",
    writes="Nothing: it prints the studies with their place in the paper.",
    examples=("paper list", "paper list --json"),
)
def list_studies() -> dict[str, Any]:
    """List the studies: a table or figure of the paper each."""
    from codepmp_ray.studies.catalogue import STUDIES

    width = max(map(len, STUDIES))
    for name, study in STUDIES.items():
        print(f"{name:<{width}}  {study.place}: {study.title}")
    return {name: {"place": s.place, "title": s.title} for name, s in STUDIES.items()}


@command(
    "paper run",
    job="study",
    settings="studies",
    words="STUDY",
    needs=_NEEDS,
    writes="results/NAME.json and reports/NAME.html in run_dir, and the trainings it needed.",
    examples=("paper run table2 data_dir=data", "paper run table3 --plan --config gpu"),
    sections=_SECTIONS,
)
def run(
    config: "StudiesConfig",
    words: list[str],
    name: Annotated[str | None, Option(help="The study, as STUDY names it.")] = None,
    plan: _Plan = False,
    budget_min: Annotated[
        float | None, Option(metavar="MINUTES", help="In place of the recipe's.")
    ] = None,
    docs: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write the study's own page, its figure and its numbers."),
    ] = None,
) -> dict[str, Any]:
    """Run one study, with the models and sets of a recipe.

    Trainings and scores are kept in the recipe's run directory and shared with other studies; the
    same command goes on where it was stopped. Before it starts it says what is left to do and how
    long that takes.
    """
    names = [*words, *([name] if name else [])]
    if len(names) != 1:
        raise ConfigError(
            f"{len(names)} studies are named: {', '.join(names) or 'none'}.",
            "Name one of those that `codepmp paper list` shows; `paper all` runs several.",
        )
    from codepmp_ray.studies.catalogue import find_studies

    (study,) = find_studies(names)
    if docs and study.page is None:
        raise ConfigError(
            f"{study.name} has no page of its own.",
            f"`codepmp paper all {study.name} --docs FILE` writes the report.",
        )
    if plan:
        return _print_plan([study], config)
    from codepmp_ray.cluster.laboratory import connected
    from codepmp_ray.cluster.study_run import run_study
    from codepmp_ray.studies.bench import Bench
    from codepmp_ray.studies.report import print_study, write_reports
    from codepmp_ray.studies.study import Context

    budget_s = 60 * budget_min if budget_min else None
    bench = Bench(config)
    with connected(bench):
        record = run_study(study, bench, budget_s, alone=True)
    print_study(record)
    print(f"Report: {write_reports(bench, [record], study.name)}")
    if docs and study.page is not None:
        study.page(Context(study.name, bench, config.options(study.name)), record, docs)
    return record


@command(
    "paper all",
    job="reproduce",
    settings="studies",
    words="STUDY",
    needs=_NEEDS,
    writes="reports/NAME.html, .md and .json in run_dir, and results/ of every study.",
    examples=("paper all data_dir=data", "paper all --plan --config gpu data_dir=data"),
    sections=_SECTIONS,
)
def run_all(
    config: "StudiesConfig",
    words: list[str],
    only: Annotated[
        list[str] | None, Option(metavar="STUDY", help="Studies; without any: all of the recipe.")
    ] = None,
    plan: _Plan = False,
    docs: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Also write Markdown to this file, with figure and numbers.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Run every study of a recipe within its budget, and write one report.

    Studies share trainings and scores, each has its own budget of minutes, and the same command
    goes on where it was stopped. What needs data that is not here is reported as not measured, what
    failed as failed, each with its reason, and the others go on.
    """
    from codepmp_ray.studies.catalogue import find_studies

    studies = find_studies([*(only or []), *words] or config.studies)
    if plan:
        return _print_plan(studies, config)
    from codepmp_ray.cluster.laboratory import connected
    from codepmp_ray.cluster.study_run import run_studies
    from codepmp_ray.command.train import GRPO, train_policy
    from codepmp_ray.studies.bench import Bench
    from codepmp_ray.studies.cost import announce_all
    from codepmp_ray.studies.report import (
        print_overview,
        write_document,
        write_numbers,
        write_reports,
    )

    start_s = time.monotonic()
    bench = Bench(config)
    announce_all(studies, bench)
    found = {}
    with connected(bench):
        for record in run_studies(studies, bench, {GRPO: train_policy}):
            found[record["name"]] = record
            write_numbers(bench, list(found.values()), config.name)  # whatever follows
    records = list(found.values())
    page = write_reports(bench, records, config.name)
    print_overview(records)
    if docs:
        write_document(bench, config.name, docs)
    print(f"Took {time.monotonic() - start_s:.0f} s. Report: {page}")
    return found


def _print_plan(studies: "list[Study]", config: "StudiesConfig") -> dict[str, Any]:
    """Needs no GPU, no hub and no data."""
    from dataclasses import asdict

    from codepmp_ray.studies.plan_table import plan_studies, print_plans

    plans = plan_studies(studies, config)
    print_plans(plans, config)
    return {study.name: asdict(plan) for study, plan in zip(studies, plans, strict=True)}
