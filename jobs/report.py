"""Write the HTML report of a run, and one about the diversity of its pairs; needs no Ray.

Stages that are missing are named in the report.
"""

from __future__ import annotations

from codepmp_ray.analysis.diversity_report import write_diversity
from codepmp_ray.analysis.report import write_report
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import open_stage
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    print(f"Report: {write_report(recipe)}")
    if open_stage(recipe, "synthesis").is_complete:
        print(f"Diversity of the pairs: {write_diversity(recipe)}")


if __name__ == "__main__":
    run_job(__doc__, body)
