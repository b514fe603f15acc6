"""Step time lost to an asynchronous checkpoint, over the time of writing it synchronously.

A window of steps without a checkpoint, the same window with one begun before its first step (and
waited for at its end, if it is not whole by then), the same window beside another process that
writes as many bytes straight to the disk (what that costs is the machine's share: it knows nothing
of this trainer), and a synchronous write, in turn, `rounds` times in either order; a third as often
where there is no goal. Measured with a thread fewer than there
are cores, so that the writing has one, as it has where the steps run on a GPU; and with all cores,
where the steps pay for the writer's processor time.

Two lengths of steps. Those of an ordinary pair take longer than the writing, as every real step
does: with a batch of 64 to 1,024 pairs it takes minutes where the writing takes seconds. Those of
the one shortest pair do not, so that an update overtakes the writing and what is not written yet
has to be copied.

    python -m benchmarks.checkpoint_overhead [--rounds 15]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks._results import options, require_memory, series_result, write_results
from benchmarks._training import (
    QWEN2_1_5B,
    SMOLLM2_135M,
    OurStep,
    device,
    make_pairs,
    now_s,
    shape_of,
    single_process_group,
    training_bytes,
)
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.checkpoint import Checkpointer
from codepmp_ray.training.settled_heap import settled_heap

MODELS = ("smollm2-135m", "qwen2-1.5b")
# One large block of bytes, again and again, past the page cache as checkpoints go.
_WRITES = """
import mmap, os, sys
block = mmap.mmap(-1, 1 << 26)
block.write(os.urandom(len(block)))
print(flush=True)
sys.stdin.read()
try:
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
except OSError:  # no such thing on this file system
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for _ in range(int(sys.argv[2]) // len(block)):
    os.write(file, block)
os.fsync(file)
os.unlink(sys.argv[1])
"""


class Trainer:
    """Our step and both ways to write a checkpoint of its state."""

    def __init__(self, scratch: Path, shape: Any) -> None:
        self.scratch = scratch
        self.step = OurStep("pmp", bf16=True, shape=shape)
        self.beside = Checkpointer(LocalStore(scratch / "beside"), 1)
        self.blocking = Checkpointer(LocalStore(scratch / "blocking"), 1, asynchronous=False)
        self.number = 0

    def window(self, pairs: list[EncodedItem], num_steps: int, checkpoint: bool) -> float:
        """Seconds of `num_steps` steps of `pairs` and, where asked, a checkpoint beside them."""
        start_s = now_s()
        if checkpoint:
            self.beside.save(self.step.model, self.step.optimizer, self._next())
        for _ in range(num_steps):
            self.step(pairs, self.beside.wait_until_copied)
            self.beside.poll(device())
        self.beside.finish()
        return now_s() - start_s

    def window_beside_writes(self, pairs: list[EncodedItem], num_steps: int) -> float:
        """The same seconds beside another process that writes a checkpoint's bytes."""
        num_bytes = sum(
            f.stat().st_size for f in self.scratch.rglob("blocking/**/*") if f.is_file()
        )
        command = [sys.executable, "-ISc", _WRITES, str(self.scratch / "other"), str(num_bytes)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin is not None and other.stdout is not None
            other.stdout.readline()  # it has its bytes
            start_s = now_s()
            other.stdin.close()
            for _ in range(num_steps):
                self.step(pairs)
            assert other.wait() == 0
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
    trainer = Trainer(folder, shape_of(model))
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
    pairs: list[EncodedItem],
    num_steps: int,
    rounds: int,
    goal: str | None,
    context: dict[str, Any],
) -> list[dict[str, Any]]:
    print(where, flush=True)
    ways = {
        "plain": lambda: trainer.window(pairs, num_steps, checkpoint=False),
        "beside": lambda: trainer.window(pairs, num_steps, checkpoint=True),
        "writes": lambda: trainer.window_beside_writes(pairs, num_steps),
    }
    found: dict[str, list[float]] = {way: [] for way in (*ways, "blocking")}
    for number in range(-1, 2 * rounds):
        # Either order in turn: a machine that becomes slower favours neither.
        order = list(ways) if number % 2 else list(ways)[::-1]
        took = {"blocking": trainer.write()} | {way: ways[way]() for way in order}
        print(f"{number}:", *(f"{way} {took[way]:.2f} s" for way in found), flush=True)
        if number >= 0:  # the first one warms up
            for way, seconds in took.items():
                found[way].append(seconds)
    plain, blocking = found["plain"], found["blocking"]
    lost, to_writes = (
        [with_one - without for without, with_one in zip(plain, found[way], strict=True)]
        for way in ("beside", "writes")
    )
    # A window's noise is more than what is lost in it: each loss over the median of the writes.
    shares, machine = (
        [loss / statistics.median(blocking) for loss in losses] for losses in (lost, to_writes)
    )
    series = {
        f"lost_over_synchronous_{where}": (shares, "ratio", goal),
        f"lost_to_another_process_s_writes_over_synchronous_{where}": (machine, "ratio", None),
        f"lost_{where}": (lost, "s", None),
        f"synchronous_write_{where}": (blocking, "s", None),
        f"step_{where}": ([seconds / num_steps for seconds in plain], "s", None),
    }
    return [
        series_result(metric, values, unit, aim, steps=num_steps, **context)
        for metric, (values, unit, aim) in series.items()
    ]


def memory_needed(model: str) -> float:
    """A step of one pair, and a copy of the state that is not written yet."""
    shape = QWEN2_1_5B if model == "qwen2-1.5b" else SMOLLM2_135M
    return training_bytes(shape, 1024, num_models=2, bf16=True)


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("--steps", type=int, default=None, help="in a window; 1 and 6 otherwise")
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m")
    parser.add_argument("--dir", default=None, help="where to write; a temporary folder otherwise")
    arguments = parser.parse_args()
    smaller = ((f"--model {name}", memory_needed(name)) for name in MODELS[::-1])
    require_memory(memory_needed(arguments.model), smaller)
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
