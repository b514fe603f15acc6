"""Execute the sampled answers against the problems' tests, in a sandbox or not at all."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.grading import grade

    with connect():
        summary = grade(recipe)
    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    print(f"{summary['num_graded']} answers graded: {outcomes}")
    if summary["executed"]:
        print(f"Sandbox: {summary['sandbox']}")
    else:
        print(f"NOT EXECUTED: {summary['sandbox']}")


if __name__ == "__main__":
    run_job(__doc__, body)
