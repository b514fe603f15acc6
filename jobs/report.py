"""Write the HTML report of a run; needs no Ray. Stages that are missing are named in it."""

from __future__ import annotations

from codepmp_ray.analysis.report import write_report
from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    print(f"Report: {write_report(recipe)}")


if __name__ == "__main__":
    run_job(__doc__, body)
