"""Time of all statistics of a pool as large as the paper's: 1,319 problems, 256 candidates each.

Two reward models, random, length, model prior, exact majority, weighted majority and oracle for
k = 1, 2, 4 ... 256, one-draw deviations, 10,000 bootstrap draws, comparisons with tests. The pool
is made up: difficulties spread as those of GSM8K, right answers agree, wrong ones agree in part.

    python -m benchmarks.evaluation_statistics [--num-problems 1319] [--num-candidates 256]
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks._results import options, series_result, write_results
from codepmp_ray.evaluation.pool_report import MAIN, PoolArrays, Settings, measure_pools

GOAL_S = 10.0


def made_up_pool(num_problems: int, num_candidates: int, seed: int = 0) -> PoolArrays:
    """Pass rates from a beta distribution; wrong answers by Zipf's law, so that some agree."""
    generator = np.random.default_rng(seed)
    shape = (num_problems, num_candidates)
    passed = generator.random(shape) < generator.beta(1.2, 0.8, size=(num_problems, 1))
    wrong = np.minimum(generator.zipf(1.6, size=shape), 80)
    latent = 1.5 * passed + generator.normal(size=shape)
    return PoolArrays(
        passed=passed,
        scores={MAIN: latent, "second": latent + generator.normal(size=shape)},
        groups=np.where(passed, 0, wrong),
        lengths=generator.integers(20, 400, size=shape),
        models=np.broadcast_to(np.arange(num_candidates) % 16, shape),
    )


def main() -> None:
    arguments = options(
        __doc__, num_problems=1_319, num_candidates=256, num_bootstrap=10_000, runs=3
    ).parse_args()
    pool = made_up_pool(arguments.num_problems, arguments.num_candidates)
    times_s = []
    for _ in range(arguments.runs):
        start_s = time.perf_counter()
        measure_pools(pool, settings=Settings(num_bootstrap=arguments.num_bootstrap))
        times_s.append(time.perf_counter() - start_s)
    size = f"{arguments.num_problems} problems x {arguments.num_candidates} candidates"
    result = series_result(
        "statistics_s",
        times_s,
        "s",
        f"under {GOAL_S:g} s",
        size=size,
        num_bootstrap=arguments.num_bootstrap,
    )
    write_results("evaluation_statistics", [result])


if __name__ == "__main__":
    main()
