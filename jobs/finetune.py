"""Reward-model finetuning on graded answers of the training problems: L_RM."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job
from jobs._training import outcome


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import finetune

    with connect():
        print(outcome(recipe, "finetuning", finetune(recipe)))


if __name__ == "__main__":
    run_job(__doc__, body)
