"""Preference-model pretraining (PMP) on the synthesised pairs: L_RM + L_LM."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import pretrain

    with connect():
        summary = pretrain(recipe)
    print(
        f"{summary['num_steps']} steps on {summary['num_pairs']} pairs; held-out accuracy "
        f"{summary['eval_accuracy_before']} -> {summary['eval_accuracy']} "
        f"({summary['eval_num_pairs']} pairs)"
    )


if __name__ == "__main__":
    run_job(__doc__, body)
