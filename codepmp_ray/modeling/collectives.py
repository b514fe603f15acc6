"""What ranks tell each other besides tensors: one's answer, all values, failures, the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from codepmp_ray.errors import CodePMPError

T = TypeVar("T")

# The threads that torch starts for each gloo group.
_GLOO_THREAD = "pt_gloo_runloop"
_REST_S, _NUM_LOOKS, _LONGEST_REST_S = 2e-3, 3, 60.0

# Returns the values of all ranks, in the order of ranks.
Gather = Callable[[Any], list[Any]]


def agree(value: T) -> T:
    """Rank 0's value, on every rank. Collective."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, by rank; only this one where there is no process group. Collective."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def failing_together(gather: Gather = gather_objects) -> Iterator[None]:
    """A CodePMPError of one rank in the block is raised on all: none waits for one that has left.

    Collective, so the block ends on every rank or fails there with a CodePMPError.
    """
    failure: CodePMPError | None = None
    try:
        yield
    except CodePMPError as error:
        failure = error
    for error in gather(failure):
        if error is not None:
            raise error


def leave_process_group() -> None:
    """Destroy all process groups, so that the process may end at once."""
    dist.destroy_process_group()
    let_gloo_rest()


def let_gloo_rest() -> None:
    """Return when gloo's threads have dropped the tensors of finished collectives.

    A collective is over for its caller a moment before gloo's thread drops its tensors, for which
    that thread needs the GIL. Destroying the group does not end the thread: FSDP's caches keep the
    group. A thread that asks for the GIL while the interpreter finalises is ended by pthread_exit
    inside a destructor, which aborts the process (SIGABRT, "terminate called without an active
    exception"; pytorch issue 190489).
    """
    resting, give_up_s = 0, time.monotonic() + _LONGEST_REST_S
    while resting < _NUM_LOOKS and time.monotonic() < give_up_s:
        time.sleep(_REST_S)  # without the GIL
        resting = resting + 1 if set(gloo_thread_states()) <= {"S"} else 0


def gloo_thread_states() -> list[str]:
    """The kernel's letter for each gloo thread of this process: S sleeps, R runs or would."""
    states = []
    for file in Path("/proc/self/task").glob("*/stat"):
        try:
            name, _, rest = file.read_text().partition("(")[2].rpartition(")")
        except OSError:  # the thread has ended
            continue
        if name == _GLOO_THREAD:
            states.append(rest.split()[0])
    return states
