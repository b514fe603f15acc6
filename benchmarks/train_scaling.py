"""From one training process to two: how much of the second one's speed is left, and what takes it.

One thread a process, gloo between them, the same step for every pair: PMP, bf16, FSDP2. Each
process has `--pairs` pairs a step (weak scaling). In turn:

alone     one process
beside    two processes that know nothing of each other: they share caches, memory and clock only
together  two processes as one group

beside over alone is what the machine takes, together over beside what the group takes: gathering
and reducing, and waiting for the slower one.

    python -m benchmarks.train_scaling [--rounds 3] [--pairs 4]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from benchmarks._results import free_port, options, series_result, write_results
from benchmarks._training import (
    SMOLLM2_135M,
    Lengths,
    OurStep,
    make_pairs,
    packed_tokens,
    ratio_result,
    require_memory_for_pairs,
    training_bytes,
)
from codepmp_ray.modeling.collectives import leave_process_group

STEPS = 3  # timed in one round, after one that is not


def child(rank: int, world_size: int, port: int, pairs_per_process: int) -> None:
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    group = 0 if world_size == 1 else rank
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=group, world_size=world_size)
    step = OurStep("pmp", bf16=True, world_size=world_size)
    pairs = make_pairs(pairs_per_process) * world_size  # every process the same work
    times: list[float] = []
    for _ in range(STEPS + 1):
        start_s = time.perf_counter()
        step(pairs)
        times.append(time.perf_counter() - start_s)
    print(statistics.median(times[1:]))
    leave_process_group()


def step_s(num_processes: int, world_size: int, pairs_per_process: int) -> float:
    """Seconds a step of the slowest of `num_processes`, in groups of `world_size`."""
    shared = free_port()
    running = []
    for rank in range(num_processes):
        port = shared if world_size > 1 else free_port()
        numbers = [rank, world_size, port, pairs_per_process]
        command = [sys.executable, "-m", "benchmarks.train_scaling", "--child", *map(str, numbers)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("A training process failed; its message is above.")
    return max(float(output.strip().splitlines()[-1]) for output in outputs)


def memory_needed(lengths: Lengths) -> float:
    """Two processes that share nothing."""
    return 2 * training_bytes(SMOLLM2_135M, packed_tokens(lengths), bf16=True)


def main() -> None:
    parser = options(__doc__, rounds=3, pairs=4)
    parser.add_argument("--child", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    require_memory_for_pairs(arguments.pairs, memory_needed)
    kinds = {"alone": (1, 1), "beside": (2, 1), "together": (2, 2)}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(arguments.rounds):
        for kind, (num_processes, world_size) in kinds.items():
            times[kind].append(step_s(num_processes, world_size, arguments.pairs))
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    context = {"pairs_per_process": arguments.pairs, "precision": "bf16"}

    def share(metric: str, less: str, more: str) -> dict[str, Any]:
        return ratio_result(metric, times[less], times[more], None, **context)

    seconds = [
        series_result(f"step_{kind}", values, "s", digits=2, **context)
        for kind, values in times.items()
    ]
    write_results(
        "train_scaling",
        [
            share("efficiency_1_to_2", "alone", "together"),
            share("left_by_the_machine", "alone", "beside"),
            share("left_by_the_group", "beside", "together"),
            *seconds,
        ],
    )


if __name__ == "__main__":
    main()
