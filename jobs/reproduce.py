"""Run every study of a recipe, and write one report: the paper's values beside ours.

Studies share trainings and scores, each has its own budget of minutes, and the same command goes on
where it was stopped. What needs data that is not here is reported as not measured, what failed as
failed, each with its reason, and the others go on.
`--docs FILE` also writes the report as Markdown to FILE.
`--plan` only prints what would be trained, about how long it takes and what is missing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from codepmp_ray.config.studies import StudiesConfig, load_studies
from jobs import grpo
from jobs._cli import run_job
from jobs.study import DEFAULT_STUDIES, PLAN_HELP, print_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], help="names of studies; default: all")
    parser.add_argument("--plan", action="store_true", help=PLAN_HELP)
    parser.add_argument(
        "--docs", help="also write Markdown to this file, and its figure and numbers beside it"
    )


def body(config: StudiesConfig, arguments: argparse.Namespace) -> None:
    from codepmp_ray.cluster.laboratory import connected
    from codepmp_ray.cluster.study_run import run_studies
    from codepmp_ray.studies.announce import announce_all
    from codepmp_ray.studies.bench import Bench
    from codepmp_ray.studies.catalogue import find_studies
    from codepmp_ray.studies.report import (
        print_overview,
        write_document,
        write_numbers,
        write_reports,
    )

    studies = find_studies(arguments.only or config.studies)
    if arguments.plan:
        print_plan(studies, config)
        return
    start_s = time.monotonic()
    bench = Bench(config)
    announce_all(studies, bench)
    found = {}
    with connected(bench):
        for record in run_studies(studies, bench, {grpo.NAME: grpo.train_policy}):
            found[record["name"]] = record
            write_numbers(bench, list(found.values()), config.name)  # whatever follows
    records = list(found.values())
    page = write_reports(bench, records, config.name)
    print_overview(records)
    if arguments.docs:
        write_document(bench, config.name, Path(arguments.docs))
    print(f"Took {time.monotonic() - start_s:.0f} s. Report: {page}")


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments, load_studies, DEFAULT_STUDIES)
