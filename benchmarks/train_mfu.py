"""Model FLOPs utilisation of a PMP step of a Qwen2-1.5B shape on one GPU: full micro-batches, bf16.

A step has several micro-batches, as the recipes' have, then clipping and AdamW. Compiled blocks are
measured beside uncompiled ones, and recomputed activations beside kept ones.

Arbitrary weights: time depends on the shape alone. `--tiny` runs a small shape anywhere, to see
that this works; MFU is then empty on devices whose peak nobody knows.

    python -m benchmarks.train_mfu [--steps 10]
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from transformers import Qwen2Config

from benchmarks._results import gpu, options, require_memory, series_result, write_results
from benchmarks._training import (
    QWEN2_1_5B,
    TINY,
    OurStep,
    device,
    make_pairs,
    now_s,
    single_process_group,
    training_bytes,
)
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.plan import plan_step
from codepmp_ray.training.throughput import Utilisation


def full_micro_batches(number: int, max_tokens: int) -> list[EncodedItem]:
    """As many pairs of real lengths as fit into that many micro-batches."""
    drawn = [pair for seed in range(number) for pair in make_pairs(256, seed)]
    for num_pairs in range(len(drawn), 0, -1):
        lengths = [pair.num_tokens for pair in drawn[:num_pairs]]
        fits = sum(lengths) <= number * max_tokens
        if fits and plan_step(lengths, 1, max_tokens).num_micro_batches <= number:
            return drawn[:num_pairs]
    raise SystemExit(f"--max-tokens {max_tokens} is too few for one pair.")


def measure(
    shape: dict[str, Any], pairs: list[EncodedItem], steps: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    step = OurStep("pmp", bf16=True, shape=Qwen2Config(**shape), **settings)
    utilisation = Utilisation(step.model, device(), bf16=True)
    times: list[float] = []
    for number in range(steps + 3):  # kernels are compiled in the first ones
        start_s = now_s()
        step(pairs)
        if number >= 3:
            times.append(now_s() - start_s)
    num_tokens = sum(pair.num_tokens for pair in pairs)
    found = [utilisation.mfu(pairs, seconds, 1) for seconds in times]
    shares = [share for share in found if share is not None]
    rates = [num_tokens / seconds for seconds in times]
    context = {**settings, "pairs": len(pairs), "tokens_a_step": num_tokens}
    if device().type == "cuda":
        context["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    peak = "share of the device's bf16 peak"
    return [
        series_result("mfu", shares, peak, "aim at 0.5", digits=4, **context),
        series_result("tokens_per_s", rates, "packed tokens/s", digits=1, **context),
    ]


def main() -> None:
    arguments = options(
        __doc__,
        steps=10,
        max_tokens=(16_384, "of a micro-batch"),
        micro_batches=(4, "of a step"),
        tiny=False,
    ).parse_args()
    if not gpu() and not arguments.tiny:
        raise SystemExit("This shape needs a GPU; --tiny runs a small one here.")
    # Where a GPU does not ask for itself, the shape is the small one.
    sizes = (1024 * n for n in range((arguments.max_tokens - 1) // 1024, 0, -1))
    require_memory(
        training_bytes(TINY, arguments.max_tokens, bf16=True),
        ((f"--max-tokens {size}", training_bytes(TINY, size, bf16=True)) for size in sizes),
    )
    pairs = full_micro_batches(arguments.micro_batches, arguments.max_tokens)
    shape = TINY if arguments.tiny else QWEN2_1_5B
    results: list[dict[str, Any]] = []
    with single_process_group():
        for compiled, recompute in ((True, False), (True, True), (False, False)):
            settings = {
                "torch_compile": compiled,
                "gradient_checkpointing": recompute,
                "max_tokens_per_micro_batch": arguments.max_tokens,
            }
            results += measure(shape, pairs, arguments.steps, settings)
            if not arguments.tiny:
                write_results("train_mfu", results)
            gc.collect()
            if device().type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    if arguments.tiny:
        print(results)


if __name__ == "__main__":
    main()
