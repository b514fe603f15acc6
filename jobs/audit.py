"""What the reward follows besides quality: length, format, adversarial edits, over-optimisation.

The pairs are those of accuracy.data; edited answers are scored beside them. The limits of the
gate are in the section audit; serving.require_audit refuses to serve a model without a passed and
complete audit. Falling accuracy with k is looked for where this recipe's evaluation is finished.
"""

from __future__ import annotations

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.evaluation.audit.run import audit
    from codepmp_ray.evaluation.audit.table import print_audit
    from codepmp_ray.evaluation.pairwise.pairs import load_pairs
    from jobs._endpoint import model_of, reward_client

    loaded = load_pairs(recipe.accuracy)  # what cannot be read is known before a model is loaded
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        results = audit(recipe, loaded, client, model)
    print_audit(results)


if __name__ == "__main__":
    run_job(__doc__, body)
