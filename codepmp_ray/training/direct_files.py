"""Checkpoint files that go past the page cache.

A checkpoint is written beside training steps, which pay for every byte that the writing moves.
Through the page cache the kernel copies them all, and keeps them, though nobody reads them soon.
With O_DIRECT the disk takes them from a small buffer of ours. Where a file system refuses that
(tmpfs, some network file systems), files are written the ordinary way.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.filesystem import (
    DEFAULT_SUFFIX,
    FileSystem,
    FileSystemWriter,
    _StorageInfo,
)
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from codepmp_ray.training.saved_tensors import write_tensor

_BUFFER_BYTES = 1 << 20  # stays in a core's cache
_BLOCK_BYTES = 4096  # a multiple of every disk's own
_O_DIRECT = getattr(os, "O_DIRECT", 0)  # only Linux has it


class DirectFile(io.RawIOBase):
    """A file written once from start to end, and on the disk when `close` has returned.

    Raises OSError where writing an ordinary file would.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = _open(path)
        # Pages of its own: O_DIRECT wants the address to be a multiple of the block size.
        self._buffer = np.frombuffer(mmap.mmap(-1, _BUFFER_BYTES), dtype=np.uint8)
        self._num_buffered = 0
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        """Bytes given to `write` so far."""
        return self._position

    def write(self, data: Any, /) -> int:
        # NumPy copies without the interpreter's lock, which the steps need.
        source = np.frombuffer(data, dtype=np.uint8)
        start = 0
        while start < len(source):
            num_bytes = min(len(source) - start, _BUFFER_BYTES - self._num_buffered)
            end = self._num_buffered + num_bytes
            self._buffer[self._num_buffered : end] = source[start : start + num_bytes]
            self._num_buffered, start = end, start + num_bytes
            if end == _BUFFER_BYTES:
                self._write_out()
        self._position += len(source)
        return len(source)

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._num_buffered % _BLOCK_BYTES:
                flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
                fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_O_DIRECT)
            self._write_out()
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
            super().close()

    def _write_out(self) -> None:
        start = 0
        while start < self._num_buffered:
            start += os.write(self._descriptor, self._buffer[start : self._num_buffered].data)
        self._num_buffered = 0


class DirectWriter(FileSystemWriter):
    """torch's writer of checkpoint files, with files that go past the page cache.

    One file a rank, which torch's own reader reads.

    Args:
        when_read: called when nothing of the state is needed any more, before the disk has it all.
    """

    def __init__(self, path: Path, when_read: Callable[[], None] = lambda: None) -> None:
        super().__init__(path, sync_files=False)  # the files do that themselves
        self.fs = _DirectFileSystem()
        self._when_read = when_read

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        name = f"{plan.storage_data.prefix}0{DEFAULT_SUFFIX}"
        results: list[WriteResult] = []
        with DirectFile(Path(self.path) / name) as file:
            for item in plan.items:
                start = file.tell()
                data = planner.resolve_data(item)
                if isinstance(data, torch.Tensor):
                    write_tensor(data, file)
                else:
                    file.write(data.getbuffer())
                num_bytes = file.tell() - start
                place = _StorageInfo(name, start, num_bytes)
                results.append(WriteResult(item.index, num_bytes, place))
            self._when_read()
        written = Future[list[WriteResult]]()
        written.set_result(results)
        return written


class _DirectFileSystem(FileSystem):
    @contextmanager
    def create_stream(
        self, path: str | os.PathLike[str], mode: str
    ) -> Generator[io.IOBase, None, None]:
        if mode != "wb":
            with super().create_stream(path, mode) as stream:
                yield stream
            return
        with DirectFile(Path(path)) as stream:
            yield stream


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags | _O_DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags, 0o666)
