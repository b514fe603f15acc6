"""Snippets -> <prompt, chosen, rejected>: describe, answer strongly, answer weakly."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.synthesis import synthesize

    with connect():
        summary = synthesize(recipe)
    print(
        f"{summary['num_pairs']} pairs from {summary['num_snippets']} snippets, "
        f"{summary['num_rejected']} rejected: {summary['rejected_by_reason']}"
    )


if __name__ == "__main__":
    run_job(__doc__, body)
