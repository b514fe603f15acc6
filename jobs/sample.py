"""Candidate pools: sampled answers to the training and the evaluation problems."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.sampling import sample_candidates

    with connect():
        summary = sample_candidates(recipe)
    print(f"{summary['num_candidates']} answers to {summary['num_problems']} problems")


if __name__ == "__main__":
    run_job(__doc__, body)
