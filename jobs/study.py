"""Run one study: a table or figure of the paper, with the models and sets of a recipe.

Trainings and scores are kept in the recipe's run directory and shared with other studies; the same
command goes on where it was stopped. Before it starts it says what is left to do and how long that
takes. The outcome is printed, and written to results/NAME.json and NAME.html in the run directory.
`--plan` only prints what would be trained, about how long it takes and what is missing.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from codepmp_ray.config.studies import StudiesConfig, load_studies
from jobs._cli import run_job

if TYPE_CHECKING:
    from codepmp_ray.studies.study import Study

DEFAULT_STUDIES = "jobs/recipes/studies/laptop.yaml"
PLAN_HELP = (
    "print what would be trained, about how long it takes and what is missing; start nothing"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="the study, e.g. table2")
    parser.add_argument("--plan", action="store_true", help=PLAN_HELP)
    parser.add_argument("--budget-min", type=float, help="minutes, in place of the recipe's")


def print_plan(studies: list[Study], config: StudiesConfig) -> None:
    """Needs no GPU, no hub and no data."""
    from codepmp_ray.studies.plan_table import plan_studies, print_plans

    print_plans(plan_studies(studies, config), config)


def body(config: StudiesConfig, arguments: argparse.Namespace) -> None:
    from codepmp_ray.cluster.laboratory import connected
    from codepmp_ray.cluster.study_run import run_study
    from codepmp_ray.studies.bench import Bench
    from codepmp_ray.studies.catalogue import find_studies
    from codepmp_ray.studies.report import print_study, write_reports

    (study,) = find_studies([arguments.name])
    if arguments.plan:
        print_plan([study], config)
        return
    budget_s = 60 * arguments.budget_min if arguments.budget_min else None
    bench = Bench(config)
    with connected(bench):
        record = run_study(study, bench, budget_s, alone=True)
    print_study(record)
    print(f"Report: {write_reports(bench, [record], arguments.name)}")


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments, load_studies, DEFAULT_STUDIES)
