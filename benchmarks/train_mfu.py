"""Model FLOPs utilisation of a PMP step of a Qwen2-1.5B shape on one GPU: full micro-batches, bf16.

Arbitrary weights: time depends on the shape alone. `--tiny` runs a small shape anywhere, to see
that this works; MFU is then empty on devices whose peak nobody knows.

    python -m benchmarks.train_mfu [--steps 10]
"""

from __future__ import annotations

import argparse
from typing import Any

from transformers import Qwen2Config

from benchmarks._results import gpu, series_result, write_results
from benchmarks._training import OurStep, device, make_pairs, now_s, single_process_group
from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.training.throughput import Utilisation

QWEN2_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
TINY = {
    **QWEN2_1_5B,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "vocab_size": 49152,
}


def full_micro_batch(max_tokens: int) -> list[EncodedPair]:
    """As many pairs of real lengths as fit into one micro-batch."""
    taken: list[EncodedPair] = []
    num_tokens = 0
    for pair in make_pairs(256):
        num_tokens += pair.packed_length("chosen")
        if num_tokens > max_tokens:
            break
        taken.append(pair)
    return taken


def measure(
    shape: dict[str, Any], max_tokens: int, recompute: bool, steps: int
) -> list[dict[str, Any]]:
    step = OurStep(
        "pmp",
        bf16=True,
        shape=Qwen2Config(**shape),
        gradient_checkpointing=recompute,
        max_tokens_per_micro_batch=max_tokens,
    )
    pairs = full_micro_batch(max_tokens)
    utilisation = Utilisation(step.model, device(), bf16=True)
    times: list[float] = []
    for number in range(steps + 3):  # kernels are compiled in the first ones
        start_s = now_s()
        step(pairs)
        if number >= 3:
            times.append(now_s() - start_s)
    num_tokens = sum(pair.packed_length("chosen") for pair in pairs)
    found = [utilisation.mfu(pairs, seconds, 1) for seconds in times]
    shares = [share for share in found if share is not None]
    rates = [num_tokens / seconds for seconds in times]
    context = {"gradient_checkpointing": recompute, "tokens_a_step": num_tokens}
    peak = "share of the device's bf16 peak"
    return [
        series_result("mfu", shares, peak, "aim at 0.5", digits=4, **context),
        series_result("tokens_per_s", rates, "packed tokens/s", digits=1, **context),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=16_384, help="of a micro-batch")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if not gpu() and not arguments.tiny:
        raise SystemExit("This shape needs a GPU; --tiny runs a small one here.")
    results: list[dict[str, Any]] = []
    with single_process_group():
        for recompute in (False, True):
            shape = TINY if arguments.tiny else QWEN2_1_5B
            results += measure(shape, arguments.max_tokens, recompute, arguments.steps)
    if arguments.tiny:
        print(results)
        return
    write_results("train_mfu", results)


if __name__ == "__main__":
    main()
