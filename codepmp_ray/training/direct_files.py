"""Files that go past the page cache.

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
from pathlib import Path
from typing import Any

import numpy as np

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


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags | _O_DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags, 0o666)
