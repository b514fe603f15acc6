"""How often the "chosen" label is wrong: both models answer problems with tests, and are graded.

Each model samples as it does in synthesis (synthesis.chosen and synthesis.rejected). The problems
are those of candidates.task, train and eval parts together, with candidates.num_eval_samples
answers each. The figures are printed and stored in the run directory.
"""

from __future__ import annotations

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.label_noise import measure_label_noise

    with connect():
        result, where = measure_label_noise(recipe)
    confidence = f"{recipe.evaluation.confidence:.0%}"
    print(f"{result.num_problems} problems of {recipe.candidates.task}, {confidence} intervals:")
    for label, interval in (
        ("strong model passes", result.strong_accuracy),
        ("weak model passes", result.weak_accuracy),
        ("only the strong answer passes", result.right),
        ("only the weak answer passes", result.wrong),
        ("both pass", result.both_pass),
        ("both fail", result.both_fail),
    ):
        print(f"  {label}: {interval.mean:.1%} ({interval.low:.1%} to {interval.high:.1%})")
    if result.noise is None:
        print("Label noise: unknown, the two models never differed.")
    else:
        noise = result.noise
        print(
            f"Label noise of 'strong is better', where tests tell the answers apart: "
            f"{noise.mean:.1%} ({noise.low:.1%} to {noise.high:.1%})"
        )
    print(where)


if __name__ == "__main__":
    run_job(__doc__, body)
