"""What synthesis will cost: a pilot, then devices, hours, price and the split of the engines.

The corpus stage has to be complete. planning.num_rows, planning.num_gpus and
planning.price_per_gpu_hour ask for another size than the one at hand.
"""

from __future__ import annotations

from codepmp_ray.config.recipe import Recipe
from jobs._cli import run_job


def body(recipe: Recipe) -> None:
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.plan import plan_lines

    with connect():
        for line in plan_lines(recipe):
            print(line)


if __name__ == "__main__":
    run_job(__doc__, body)
