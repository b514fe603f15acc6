"""Preference-model pretraining (PMP) on the synthesised pairs: L_RM + L_LM."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job
from jobs._training import outcome


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import pretrain

    with connect():
        print(outcome(recipe, "pretraining", pretrain(recipe)))


if __name__ == "__main__":
    run_job(__doc__, body)
