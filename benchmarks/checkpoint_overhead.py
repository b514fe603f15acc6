"""Step time lost to an asynchronous checkpoint, over the time of writing it synchronously.

A window of steps without a checkpoint, the same window with one begun before its first step (and
waited for at its end, if it is not whole by then), and a synchronous write, in turn, `rounds` times
in either order; a third as often where there is no goal. Measured with a thread fewer than there
are cores, so that the writing has one, as it has where the steps run on a GPU; and with all cores,
where the steps pay for the writer's processor time.

Two lengths of steps. Those of an ordinary pair take longer than the writing, as every real step
does: with a batch of 64 to 1,024 pairs it takes minutes where the writing takes seconds. Those of
the one shortest pair do not, so that an update overtakes the writing and what is not written yet
has to be copied.

    python -m benchmarks.checkpoint_overhead [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks._results import series_result, write_results
from benchmarks._training import (
    OurStep,
    device,
    make_pairs,
    now_s,
    shape_of,
    single_process_group,
)
from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.settled_heap import settled_heap


class Trainer:
    """Our step and both ways to write a checkpoint of its state."""

    def __init__(self, scratch: Path, model: str) -> None:
        self.step = OurStep("pmp", bf16=True, shape=shape_of(model))
        self.beside = Checkpointer(LocalStore(scratch / "beside"), 1)
        self.blocking = Checkpointer(LocalStore(scratch / "blocking"), 1, asynchronous=False)
        self.number = 0

    def window(self, pairs: list[EncodedPair], num_steps: int, checkpoint: bool) -> float:
        """Seconds of `num_steps` steps of `pairs` and, where asked, a checkpoint beside them."""
        start_s = now_s()
        if checkpoint:
            self.beside.save(self.step.model, self.step.optimizer, self._next())
        for _ in range(num_steps):
            self.step(pairs, self.beside.wait_until_copied)
            self.beside.poll(device())
        self.beside.finish()
        return now_s() - start_s

    def write(self) -> float:
        start_s = now_s()
        self.blocking.save(self.step.model, self.step.optimizer, self._next())
        return now_s() - start_s

    def _next(self) -> int:
        self.number += 1
        return self.number


def measure(
    threads: int, rounds: int, window: int | None, model: str, folder: Path
) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    pairs = sorted(make_pairs(64), key=lambda pair: pair.num_tokens)
    trainer = Trainer(folder, model)
    spare = len(os.sched_getaffinity(0)) - threads
    where = "spare_core" if spare else "all_cores"
    goal = "at most 0.1" if spare else None
    context = {"model": model, "threads": threads, "spare_cores": spare}
    # A window is long enough for a whole checkpoint and for the removal of the one before, and no
    # longer: its noise grows with it.
    long, short = (pairs[31:32], window or 1), (pairs[:1], window or 6)
    fewer = max(1, rounds // 3)
    num_rounds = rounds if spare else fewer
    with settled_heap():  # as the trainer does
        return [
            *measure_steps(trainer, f"long_steps_{where}", *long, num_rounds, goal, context),
            *measure_steps(trainer, f"short_steps_{where}", *short, fewer, None, context),
        ]


def measure_steps(
    trainer: Trainer,
    where: str,
    pairs: list[EncodedPair],
    num_steps: int,
    rounds: int,
    goal: str | None,
    context: dict[str, Any],
) -> list[dict[str, Any]]:
    print(where, flush=True)
    plain: list[float] = []
    beside: list[float] = []
    blocking: list[float] = []
    for number in range(-1, 2 * rounds):
        # Each way is first in every other pair: a machine that becomes slower favours neither.
        order = (False, True) if number % 2 else (True, False)
        took = {way: trainer.window(pairs, num_steps, checkpoint=way) for way in order}
        write_s = trainer.write()
        print(f"{number}: {took[False]:.2f} s, {took[True]:.2f} s, {write_s:.2f} s", flush=True)
        if number >= 0:  # the first pair warms up
            plain.append(took[False])
            beside.append(took[True])
            blocking.append(write_s)
    lost = [with_one - without for without, with_one in zip(plain, beside, strict=True)]
    # A window's noise is more than what is lost in it: each loss over the median of the writes.
    shares = [loss / statistics.median(blocking) for loss in lost]
    series = {
        f"lost_over_synchronous_{where}": (shares, "ratio", goal),
        f"lost_{where}": (lost, "s", None),
        f"synchronous_write_{where}": (blocking, "s", None),
        f"step_{where}": ([seconds / num_steps for seconds in plain], "s", None),
    }
    return [
        series_result(metric, values, unit, aim, steps=num_steps, **context)
        for metric, (values, unit, aim) in series.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=None, help="in a window; 1 and 6 otherwise")
    parser.add_argument("--model", choices=("smollm2-135m", "qwen2-1.5b"), default="smollm2-135m")
    parser.add_argument("--dir", default=None, help="where to write; a temporary folder otherwise")
    arguments = parser.parse_args()
    num_cores = len(os.sched_getaffinity(0))
    results: list[dict[str, Any]] = []
    for threads in sorted({max(1, num_cores - 1), num_cores}):
        with tempfile.TemporaryDirectory(dir=arguments.dir) as scratch, single_process_group():
            results += measure(
                threads, arguments.rounds, arguments.steps, arguments.model, Path(scratch)
            )
        write_results("checkpoint_overhead", results)


if __name__ == "__main__":
    main()
