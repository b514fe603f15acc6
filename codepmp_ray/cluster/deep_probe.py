"""What nodes do for `cluster check --deep`: write and read storage, all-reduce, load a model.

As a program, `python -m codepmp_ray.cluster.deep_probe MODEL`, it fetches and reads one model: a
process can be ended when it takes too long, a thread cannot.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from codepmp_ray.errors import ModelError
from codepmp_ray.storage import LocalStore, open_store
from codepmp_ray.storage.node_copies import cache_dir

FILE_BYTES, NUM_FILES = 64 * 2**20, 4  # of each node
_REDUCED_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
_NUM_ROUNDS = 5


@dataclass(frozen=True)
class ModelTimes:
    """Seconds to fetch a model onto a node that has nothing of it, and to read its weights there
    from disk into host memory; `num_bytes` are those of the weights."""

    fetch_s: float
    read_s: float
    num_bytes: int


class StorageWorker:
    """One node's part: its own files, in a scratch folder of the run."""

    def __init__(self, folder: str) -> None:
        self._store = open_store(folder)
        self._data = os.urandom(FILE_BYTES)  # compresses to nothing less

    def write(self, node: int) -> float:
        """Seconds for this node's files."""
        began_s = time.monotonic()
        for number in range(NUM_FILES):
            self._store.put(f"{node}-{number}", self._data)
        return time.monotonic() - began_s

    def read(self, node: int) -> float:
        """Seconds for the files of `node`: of another than this one, which may have them still."""
        names = [f"{node}-{number}" for number in range(NUM_FILES)]
        if isinstance(self._store, LocalStore):
            forget_pages([self._store.path(name) for name in names])
        began_s = time.monotonic()
        for name in names:
            self._store.read_bytes(name)
        return time.monotonic() - began_s


class Reducer:
    """One rank of an all-reduce, where a trainer would be."""

    def address(self) -> str:
        """Of this rank, for all to meet at."""
        import socket

        from ray.util import get_node_ip_address

        host = get_node_ip_address()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def seconds(self, rank: int, num_ranks: int, address: str, limit_s: float) -> tuple[float, int]:
        """Median seconds of one all-reduce, and how many bytes it sums."""
        import torch
        import torch.distributed as dist

        device = "cuda" if torch.cuda.is_available() else "cpu"
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=address,
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(seconds=limit_s),
        )
        values = torch.zeros(_REDUCED_BYTES[device] // 4, device=device)
        took_s = []
        for _ in range(1 + _NUM_ROUNDS):
            _settle(device)
            began_s = time.monotonic()
            dist.all_reduce(values)
            _settle(device)
            took_s.append(time.monotonic() - began_s)
        dist.destroy_process_group()
        return statistics.median(took_s[1:]), _REDUCED_BYTES[device]


def _settle(device: str) -> None:
    """All that was asked of a GPU is done, on every rank alike."""
    import torch
    import torch.distributed as dist

    dist.barrier()
    if device == "cuda":
        torch.cuda.synchronize()


def time_model(name: str, limit_s: float) -> ModelTimes:
    """Fetch a model anew into a cache of its own, read it, and delete that cache.

    Raises ModelError with the reason, or with how far it came in `limit_s`.
    """
    folder = cache_dir() / f"deep-{uuid.uuid4().hex[:12]}"
    own_caches = {"CODEPMP_CACHE": str(folder), "HF_HUB_CACHE": str(folder / "hub")}
    command = [sys.executable, "-m", __name__, name, str(limit_s)]
    try:
        done = subprocess.run(
            command, env={**os.environ, **own_caches}, capture_output=True, text=True,
            timeout=limit_s,
        )  # fmt: skip
        if done.returncode:
            raise ModelError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
        return ModelTimes(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired as error:
        there = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        text = f"{name}: {limit_s:.0f} s were too short; {there / 1e9:.1f} GB had come."
        raise ModelError(text) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fetch_and_read(name: str) -> ModelTimes:
    """Here, with the caches of this process. Raises ModelError."""
    import torch  # noqa: F401 - safetensors would import it within the time
    from safetensors import safe_open

    from codepmp_ray.modeling.sources import resolve_model

    began_s = time.monotonic()
    folder = Path(resolve_model(name))
    fetched_s = time.monotonic()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{name} has no safetensors files.")
    forget_pages(files)
    read_s, num_bytes = time.monotonic(), 0
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - no mapping
                tensor = weights.get_tensor(key).clone()  # what it gives is read when it is used
                num_bytes += tensor.nbytes
    return ModelTimes(fetched_s - began_s, time.monotonic() - read_s, num_bytes)


def forget_pages(paths: Sequence[Path]) -> None:
    """Let the kernel drop what it holds of these files, so that reading asks their disk."""
    for path in paths:
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())  # what is not on the disk yet stays
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    signal.alarm(int(float(sys.argv[2])) + 1)  # whatever becomes of who waits for it
    try:
        times = fetch_and_read(sys.argv[1])
    except ModelError as problem:
        raise SystemExit(str(problem)) from None
    print(json.dumps(vars(times)))
