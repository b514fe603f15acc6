"""What one training leaves in a process that runs many."""

from __future__ import annotations

import gc
import platform
import threading

import psutil
import pytest
import torch

from codepmp_ray.training.settled_heap import returned_heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide themselves")
def test_what_lies_in_cycles_of_an_ended_thread_goes_back_to_the_system() -> None:
    own = psutil.Process()

    def train() -> None:
        model: dict[str, object] = {f"{i}": torch.zeros(16_384) for i in range(4_000)}  # 262 MB
        model["itself"] = model

    gc.disable()  # as if no pass came along
    try:
        with returned_heap():
            pass
        before = own.memory_info().rss
        with returned_heap():
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
            left = own.memory_info().rss - before
        kept = own.memory_info().rss - before
    finally:
        gc.enable()
    assert left > 200e6
    assert kept < 50e6
