"""A process may end right after its last collective."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from codepmp_ray.modeling import collectives

NUM_TIMES = 40


@pytest.fixture
def kept_gil() -> Iterator[None]:
    """Other threads get the GIL only when this one gives it up."""
    turn_s = sys.getswitchinterval()
    sys.setswitchinterval(30)
    yield
    sys.setswitchinterval(turn_s)


def test_gloo_threads_hold_nothing_of_a_group_that_was_left(kept_gil, tmp_path: Path) -> None:
    """Where one still holds a tensor and the interpreter ends, the process aborts."""
    left = []
    for number in range(NUM_TIMES):
        store = f"file://{tmp_path}/{number}"
        dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        left.append(dist.group.WORLD)  # as FSDP's caches keep it
        tensor = torch.ones(200_000)
        held = weakref.ref(tensor)
        work = dist.all_reduce(tensor, async_op=True)
        del tensor
        while not work.is_completed():
            pass
        del work
        collectives.leave_process_group()
        assert held() is None, number


def test_gloo_threads_are_known_by_their_name(tmp_path: Path) -> None:
    before = len(collectives.gloo_thread_states())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    dist.all_reduce(torch.ones(1))
    while len(collectives.gloo_thread_states()) <= before:  # they name themselves when they run
        time.sleep(0.01)
    collectives.leave_process_group()
