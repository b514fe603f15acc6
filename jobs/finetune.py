"""Reward-model finetuning on graded answers of the training problems: L_RM."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import finetune

    with connect():
        summary = finetune(recipe)
    print(
        f"{summary['num_steps']} steps on {summary['num_pairs']} pairs; held-out accuracy "
        f"{summary['eval_accuracy_before']} -> {summary['eval_accuracy']} "
        f"({summary['eval_num_pairs']} pairs)"
    )


if __name__ == "__main__":
    run_job(__doc__, body)
