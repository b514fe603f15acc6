"""What the reward follows besides quality: length, format, languages, who wrote an answer, edits.

The pairs are those of accuracy.data and accuracy.tasks; edited answers are scored beside them.
Labelled pools (audit.pools, and the candidates of this recipe's evaluation where it is finished)
show who wrote an answer and whether accuracy falls with k. The limits of the gate are in the
section audit; serving.require_audit refuses to serve a model without a passed and complete audit.
Prints the verdict and where the report (audit.html) lies.
"""

from __future__ import annotations

import sys

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.evaluation.audit.pools import load_audit_pools
    from codepmp_ray.evaluation.audit.run import audit
    from codepmp_ray.evaluation.audit.table import print_audit
    from codepmp_ray.evaluation.pairwise.pairs import load_pairs
    from jobs._endpoint import model_of, reward_client

    # What cannot be read is known before a model is loaded.
    loaded, pools = load_pairs(recipe.accuracy), load_audit_pools(recipe.audit)
    for line in loaded.columns:
        print(line, file=sys.stderr)
    model = model_of(recipe)
    with reward_client(recipe, model) as client:
        results = audit(recipe, loaded, pools, client, model)
    print_audit(results)


if __name__ == "__main__":
    run_job(__doc__, body)
