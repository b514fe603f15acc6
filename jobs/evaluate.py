"""Best-of-N accuracy of the reward model on held-out problems, measured through the HTTP service.

Uses the service at evaluation.endpoint, or starts one on the finetuned model while the job runs.
"""

from __future__ import annotations

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.analysis.closing import print_closing
    from codepmp_ray.evaluation.scoring_run import read_results

    measure(recipe)
    print_closing(read_results(recipe))


def measure(recipe: Recipe) -> None:
    """Run or resume the stage."""
    from codepmp_ray.evaluation.scoring_run import evaluate
    from codepmp_ray.runs import open_stage
    from jobs._endpoint import model_of, reward_client

    if open_stage(recipe, "evaluation").is_complete:
        return
    for name in ("candidates", "grades"):
        open_stage(recipe, name).require()
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        evaluate(recipe, client, model)


if __name__ == "__main__":
    run_job(__doc__, body)
