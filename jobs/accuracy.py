"""Accuracy of the reward model on preference pairs, by section, with intervals.

Pairs are those of accuracy.data and accuracy.tasks.
Uses the service at evaluation.endpoint, or starts one on the finetuned model (serving.model_path)
while the job runs. Rows that are scored already are not scored again.
"""

from __future__ import annotations

import sys

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.evaluation.pairwise.pairs import load_pairs
    from codepmp_ray.evaluation.pairwise.run import measure_accuracy
    from codepmp_ray.evaluation.pairwise.table import print_accuracy
    from jobs._endpoint import model_of, reward_client

    loaded = load_pairs(recipe.accuracy)  # what cannot be read is known before a model is loaded
    for line in loaded.columns:
        print(line, file=sys.stderr)
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        results = measure_accuracy(recipe, loaded, client, model)
    print_accuracy(results)


if __name__ == "__main__":
    run_job(__doc__, body)
