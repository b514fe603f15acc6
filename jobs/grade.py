"""Whether answers are right: compared with the reference, or executed in a sandbox."""

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.grading import grade

    with connect():
        summary = grade(recipe)
    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    print(f"{summary['num_graded']} answers graded: {outcomes}")
    if summary["num_labelled"]:
        share = summary["num_agreeing"] / summary["num_labelled"]
        print(
            f"Labels of the file agree on {summary['num_agreeing']} of {summary['num_labelled']} "
            f"answers ({share:.2%}); right by the label only {summary['num_only_label']}, "
            f"by the grade only {summary['num_only_grade']}"
        )
    print(f"Sandbox: {summary['sandbox']}")
    for name, why in summary["not_gradable"].items():
        print(f"Not gradable here, so left out: {name}, {why}")
    for name, count in summary["missing_packages"].items():
        print(f"{count} answers need {name}: see evaluation.sandbox.packages")


if __name__ == "__main__":
    run_job(__doc__, body)
