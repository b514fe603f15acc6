"""Statistics of a file of labelled candidates, with the rewards of one or several models.

Reads pool_statistics.path; rewards are columns of it or tables that jobs.score or jobs.evaluate
wrote (pool_statistics.rewards). Prints best-of-k as an exact expectation with its interval and how
far one draw wanders, votes, baselines and paired comparisons, and writes them as JSON.
"""

from __future__ import annotations

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.evaluation.pool_statistics import measure_pool_file
    from codepmp_ray.evaluation.pool_statistics_table import print_pool_statistics

    print_pool_statistics(measure_pool_file(recipe))


if __name__ == "__main__":
    run_job(__doc__, body)
