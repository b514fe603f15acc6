"""The planner's peak of a step over the peak that is measured, at sizes that run here.

Each setting runs in a process of its own, with the planner's own batch twice, so that gradients of
one micro-batch stay while the next one runs. Measured is the high-water mark above what the process
held before it had a model: of torch's allocator on a GPU, of resident memory on a CPU, where the
kernels' scratch space counts too. The planner's headroom is left out.

    python -m benchmarks.train_memory_plan [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from benchmarks._results import options, require_memory, series_result, write_results
from benchmarks._training import (
    MODEL,
    SMOLLM2_135M,
    OurStep,
    child_says,
    shape_of,
    single_process_group,
    training_bytes,
    use_all_cores,
)
from benchmarks.train_memory_vs_trl import peak_mb, reset_peak
from codepmp_ray.config.training import TrainingConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "1k_tokens": {"max_tokens_per_micro_batch": 1024},
    "4k_tokens": {"max_tokens_per_micro_batch": 4096},
    "4k_tokens_recomputed": {"max_tokens_per_micro_batch": 4096, "gradient_checkpointing": True},
    "4k_tokens_bf16": {"max_tokens_per_micro_batch": 4096, "bf16": True},
}


def config_of(settings: dict[str, Any]) -> TrainingConfig:
    common = {"objective": "pmp", "bf16": False, "max_length": 512, "num_workers": 1}
    return TrainingConfig.model_validate({**common, **settings})


def planned_mb(config: TrainingConfig) -> float:
    from codepmp_ray.modeling.loading import load_config
    from codepmp_ray.training.memory_plan import plan_memory

    shape = shape_of("smollm2-135m") or load_config(MODEL)
    return sum(plan_memory(config, shape).by_kind.values()) / 2**20


def child(settings: dict[str, Any]) -> None:
    from codepmp_ray.training.memory_plan import full_batch

    use_all_cores()
    config = config_of(settings)
    pairs = full_batch(config) * 2
    with single_process_group():
        before_mb = reset_peak()
        kept = {"max_length": config.max_length, **settings}
        bf16 = kept.pop("bf16", False)
        step = OurStep(config.objective, bf16=bf16, shape=shape_of("smollm2-135m"), **kept)
        for _ in range(2):
            step(pairs)
        reset_peak()
        step(pairs)
        print(peak_mb() - before_mb)


def measured_mb(settings: dict[str, Any]) -> float:
    return float(child_says("benchmarks.train_memory_plan", "--child", json.dumps(settings)))


def main() -> None:
    parser = options(__doc__, runs=3)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child)
        return
    most = max(settings["max_tokens_per_micro_batch"] for settings in SETTINGS.values())
    require_memory(training_bytes(SMOLLM2_135M, most))
    results = []
    for name, settings in SETTINGS.items():
        planned = planned_mb(config_of(settings))
        found = [measured_mb(settings) for _ in range(arguments.runs)]
        ratios = [planned / value for value in found]
        results.append(
            series_result(
                f"planned_over_measured_{name}",
                ratios,
                "ratio",
                "about 1",
                planned_mib=round(planned),
                measured_mib=round(statistics.median(found)),
            )
        )
        write_results("train_memory_plan", results)


if __name__ == "__main__":
    main()
