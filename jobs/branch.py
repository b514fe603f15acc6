"""The scaling curve of Figure 5 from one pretraining run: branch, decay, finetune, evaluate.

The pretraining keeps checkpoints at geometric steps of its stable phase; each is decayed, finetuned
and evaluated as a run of its own. Finished parts are not done again.
"""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.analysis.report import write_report
    from codepmp_ray.analysis.scaling_table import print_scaling
    from codepmp_ray.cluster.branches import pretrain_branches, require_branchable
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import finetune
    from jobs.evaluate import body as evaluate

    require_branchable(recipe)
    with connect():
        for own in pretrain_branches(recipe):
            if recipe.branches.finetune:
                finetune(own)
            if recipe.branches.evaluate:
                evaluate(own)
    report = write_report(recipe)
    print_scaling(recipe)
    print(f"Report: {report}")


if __name__ == "__main__":
    run_job(__doc__, body)
