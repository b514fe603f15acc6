"""Our step (packed, prefix shared) against TRL's RewardTrainer on the same pairs, in turn.

Ours computes the reward loss and the language-model loss (PMP), TRL the reward loss only; RM
against RM is reported beside it, and TRL with neighbours of like length. Both end with clipping and
AdamW, use all cores and the same precision. On a GPU, where a step of eight pairs is over before it
is launched, a step has 64, ours in micro-batches of 16,384 tokens, TRL's of eight pairs still; and
the shape of Qwen2-1.5B is measured too, in bf16.

    python -m benchmarks.train_step_vs_trl [--rounds 3] [--pairs 16]
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks._results import options
from benchmarks._training import (
    PAIRS_PER_MICRO_BATCH,
    SMOLLM2_135M,
    Lengths,
    OurStep,
    TrlStep,
    alternate,
    by_length,
    make_pairs,
    measure_models,
    optimizer_steps,
    padded_tokens,
    pairs_per_step,
    rate_result,
    ratio_result,
    require_memory_for_pairs,
    shape_of,
    training_bytes,
)


def measure(
    model: str, bf16: bool, rounds: int, num_pairs: int, scratch: str
) -> list[dict[str, Any]]:
    pairs = make_pairs(num_pairs)
    shape = shape_of(model)
    trl = TrlStep(scratch, bf16=bf16, shape=shape)
    ours = {name: OurStep(name, bf16=bf16, shape=shape) for name in ("pmp", "rm")}

    def run_trl(data: list) -> None:
        for batch in optimizer_steps(data):
            trl(batch)

    def run_ours(name: str) -> None:
        for batch in optimizer_steps(pairs):
            ours[name](batch)

    times = alternate(
        {
            "trl": lambda: run_trl(pairs),
            "pmp": lambda: run_ours("pmp"),
            "rm": lambda: run_ours("rm"),
            "trl_by_length": lambda: run_trl(by_length(pairs)),
        },
        rounds,
    )
    precision = "bf16" if bf16 else "fp32"
    context = {
        "model": model,
        "precision": precision,
        "pairs": num_pairs,
        "micro_batch": PAIRS_PER_MICRO_BATCH,
        "pairs_per_step": pairs_per_step(),
    }
    goal = "at least 2.0"
    return [
        ratio_result("our_pmp_over_trl_rm", times["trl"], times["pmp"], goal, **context),
        ratio_result("our_rm_over_trl_rm", times["trl"], times["rm"], None, **context),
        ratio_result(
            "our_pmp_over_trl_rm_by_length", times["trl_by_length"], times["pmp"], None, **context
        ),
        *[rate_result(f"{name}_pairs_per_s", num_pairs, times[name], **context) for name in times],
    ]


def memory_needed(lengths: Lengths) -> float:
    """Three models in one process, while TRL's, which pads, does its step in fp32."""
    num_tokens = padded_tokens(lengths, PAIRS_PER_MICRO_BATCH)
    return training_bytes(SMOLLM2_135M, num_tokens, num_models=3)


def main() -> None:
    arguments = options(__doc__, rounds=3, pairs=16).parse_args()
    require_memory_for_pairs(arguments.pairs, memory_needed)
    with tempfile.TemporaryDirectory() as scratch:
        measure_models("train_step_vs_trl", measure, arguments.rounds, arguments.pairs, scratch)


if __name__ == "__main__":
    main()
