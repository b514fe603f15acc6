"""What one training leaves in a process that runs many."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# In a process of its own: what other tests left running allocates meanwhile.
SCRIPT = """
import gc, json, threading
import psutil, torch
from codepmp_ray.training.settled_heap import returned_heap

def train():
    model = {f"{i}": torch.zeros(16_384) for i in range(4_000)}  # 262 MB
    model["itself"] = model

own = psutil.Process()
gc.disable()  # as if no pass came along
with returned_heap():
    pass
before = own.memory_info().rss
with returned_heap():
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    left = own.memory_info().rss - before
print(json.dumps([left, own.memory_info().rss - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide themselves")
def test_what_lies_in_cycles_of_an_ended_thread_goes_back_to_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    left, kept = json.loads(done.stdout)
    assert left > 200e6
    assert kept < 50e6
