"""Show how far a run is, from its folder alone: also while nothing runs. Needs no Ray."""

from __future__ import annotations

from codepmp_ray.analysis.status import print_status
from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    print_status(recipe)


if __name__ == "__main__":
    run_job(__doc__, body)
