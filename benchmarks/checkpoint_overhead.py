"""Step time lost to an asynchronous checkpoint, over the time of writing it synchronously.

A window of steps without a checkpoint, the same window with one begun before its first step (and
waited for at its end, if it is not whole by then), and a synchronous write, in turn. Measured with
a thread fewer than there are cores, so that the writing has one, as it has where the steps run on a
GPU; and with all cores, where the steps pay for the writer's processor time.

The steps are of one short pair: what a checkpoint takes does not depend on their length, and long
ones vary by more than it takes.

    python -m benchmarks.checkpoint_overhead [--rounds 7] [--steps 6]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks._results import series_result, write_results
from benchmarks._training import OurStep, device, make_pairs, now_s, single_process_group
from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint import Checkpointer


class Trainer:
    """Our step and both ways to write a checkpoint of its state."""

    def __init__(self, scratch: Path, pairs: list[EncodedPair]) -> None:
        self.step, self.pairs = OurStep("pmp", bf16=True), pairs
        self.beside = Checkpointer(LocalStore(scratch / "beside"), 1)
        self.blocking = Checkpointer(LocalStore(scratch / "blocking"), 1, asynchronous=False)
        self.number = 0

    def window(self, num_steps: int, checkpoint: bool) -> float:
        """Seconds of `num_steps` steps and, where asked, a checkpoint beside them."""
        start_s = now_s()
        if checkpoint:
            self.beside.save(self.step.model, self.step.optimizer, self._next())
        for _ in range(num_steps):
            self.step(self.pairs, self.beside.wait_until_copied)
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


def measure(threads: int, rounds: int, num_steps: int, folder: Path) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    shortest = min(make_pairs(64), key=lambda pair: pair.num_tokens)
    trainer = Trainer(folder, [shortest])
    plain: list[float] = []
    beside: list[float] = []
    blocking: list[float] = []
    for number in range(rounds + 1):  # the first is not counted
        plain.append(trainer.window(num_steps, checkpoint=False))
        beside.append(trainer.window(num_steps, checkpoint=True))
        blocking.append(trainer.write())
        print(f"{number}: {plain[-1]:.2f} s, {beside[-1]:.2f} s, {blocking[-1]:.2f} s", flush=True)
    lost = [with_one - without for without, with_one in zip(plain[1:], beside[1:], strict=True)]
    shares = [loss / write_s for loss, write_s in zip(lost, blocking[1:], strict=True)]
    spare = len(os.sched_getaffinity(0)) - threads
    context = {"threads": threads, "spare_cores": spare, "steps": num_steps}
    where = "spare_core" if spare else "all_cores"
    series = {
        f"lost_over_synchronous_{where}": (shares, "ratio", "at most 0.1" if spare else None),
        f"lost_{where}": (lost, "s", None),
        f"synchronous_write_{where}": (blocking[1:], "s", None),
        f"step_{where}": ([seconds / num_steps for seconds in plain[1:]], "s", None),
    }
    return [
        series_result(metric, values, unit, goal, **context)
        for metric, (values, unit, goal) in series.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="long enough for a whole checkpoint")
    parser.add_argument("--dir", default=None, help="where to write; a temporary folder otherwise")
    arguments = parser.parse_args()
    num_cores = len(os.sched_getaffinity(0))
    results: list[dict[str, Any]] = []
    for threads in sorted({max(1, num_cores - 1), num_cores}):
        with tempfile.TemporaryDirectory(dir=arguments.dir) as scratch, single_process_group():
            results += measure(threads, arguments.rounds, arguments.steps, Path(scratch))
    write_results("checkpoint_overhead", results)


if __name__ == "__main__":
    main()
