"""Peak memory of a step above what stays (weights, gradients, optimizer), ours over TRL's.

Each side runs in a process of its own: two steps to settle, then the high-water mark is reset (of
resident memory, Linux: clear_refs; on a GPU of torch's allocator) and one more step runs. Same
pairs in a micro-batch, fp32.

    python -m benchmarks.train_memory_vs_trl [--runs 3]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import re
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks._results import options, require_memory, series_result, write_results
from benchmarks._training import (
    PAIRS_PER_MICRO_BATCH,
    SMOLLM2_135M,
    OurStep,
    TrlStep,
    child_says,
    draw_lengths,
    make_pairs,
    padded_tokens,
    shape_of,
    single_process_group,
    training_bytes,
    use_all_cores,
)


def reset_peak() -> float:
    """Let go of what nobody holds and forget the high-water mark; MiB that are in use now."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    now_mb = resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return now_mb


def peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resident_mb("VmHWM")


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (the highest since the last reset)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found.group(1)) / 1024


def child(kind: str) -> None:
    use_all_cores()
    pairs = make_pairs(PAIRS_PER_MICRO_BATCH)
    with tempfile.TemporaryDirectory() as scratch, single_process_group():
        shape = shape_of("smollm2-135m")
        if kind == "trl":
            step = TrlStep(scratch, bf16=False, shape=shape)
        else:
            step = OurStep(kind, bf16=False, shape=shape)
        for _ in range(2):
            step(pairs)
        # Gradients are let go between steps; they are state all the same.
        gradients_mb = sum(p.numel() * 4 for p in step.model.parameters()) / 2**20
        before_mb = reset_peak() + gradients_mb
        step(pairs)
        print(peak_mb() - before_mb)


def measure(kind: str) -> float:
    return float(child_says("benchmarks.train_memory_vs_trl", "--child", kind))


def main() -> None:
    parser = options(__doc__, runs=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    lengths = draw_lengths(PAIRS_PER_MICRO_BATCH, random.Random(0))
    require_memory(training_bytes(SMOLLM2_135M, padded_tokens(lengths, PAIRS_PER_MICRO_BATCH)))
    found = {kind: [measure(kind) for _ in range(arguments.runs)] for kind in ("trl", "pmp", "rm")}
    trl = statistics.median(found["trl"])
    common = {"precision": "fp32", "pairs": PAIRS_PER_MICRO_BATCH}
    results = [
        series_result(
            f"our_{kind}_over_trl_rm", [mib / trl for mib in found[kind]], "ratio", goal, **common
        )
        for kind, goal in (("pmp", "at most 0.6"), ("rm", None))
    ]
    results += [
        series_result(f"{kind}_peak_above_state", values, "MiB", digits=1, **common)
        for kind, values in found.items()
    ]
    write_results("train_memory_vs_trl", results)


if __name__ == "__main__":
    main()
