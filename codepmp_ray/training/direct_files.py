"""Files that go past the page cache.

A checkpoint is written beside training steps, which pay for every byte that the writing moves.
Through the page cache the kernel copies them all, and keeps them, though nobody reads them soon.
With O_DIRECT the disk takes large pieces from where they lie (`place`), and the others from a small
buffer of ours: a copy of them all would push what the steps compute with out of the caches. Where a
file system refuses that (tmpfs, some network file systems), files are written the ordinary way.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BUFFER_BYTES = 1 << 20  # stays in a core's cache
BLOCK_BYTES = 4096  # a multiple of every disk's own
_SECTOR_BYTES = 512  # addresses are multiples of it, as disks want them
LENT_BYTES = 256 << 10  # smaller pieces are gathered: a request to the disk has its price too
_O_DIRECT = getattr(os, "O_DIRECT", 0)  # only Linux has it


class DirectFile(io.RawIOBase):
    """A file written once from start to end, and on the disk when `close` has returned.

    Raises OSError where writing an ordinary file would.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = open_direct(path)
        self._buffer = pages(_BUFFER_BYTES)
        self._num_buffered = 0
        self._position = 0
        self._takes_lent = True
        self._is_broken = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        """Bytes given to `write` so far."""
        return self._position

    def place(self, address: int, num_bytes: int, num_before: int) -> None:
        """Fill up, so that the disk can take `num_bytes` from `address`.

        `write` will be given `num_before` other bytes first. Small pieces need no place.
        """
        if num_bytes >= LENT_BYTES and self._takes_lent:
            end = self._position + num_before + to_sector(address)
            self.write(bytes(-end % BLOCK_BYTES))

    def write(self, data: Any, /) -> int:
        source = np.frombuffer(data, dtype=np.uint8)
        start = 0
        ahead = to_sector(source.ctypes.data)
        is_placed = (self._position + ahead) % BLOCK_BYTES == 0
        if self._takes_lent and is_placed and len(source) - ahead >= LENT_BYTES:
            self._gather(source[:ahead])
            self._write_out()
            start = ahead + self._write_lent(source[ahead:])
        self._gather(source[start:])
        self._position += len(source)
        return len(source)

    def _gather(self, source: np.ndarray) -> None:
        # NumPy copies without the interpreter's lock, which the steps need.
        start = 0
        while start < len(source):
            num_bytes = min(len(source) - start, _BUFFER_BYTES - self._num_buffered)
            end = self._num_buffered + num_bytes
            self._buffer[self._num_buffered : end] = source[start : start + num_bytes]
            self._num_buffered, start = end, start + num_bytes
            if end == _BUFFER_BYTES:
                self._write_out()

    def _write_lent(self, source: np.ndarray) -> int:
        """Write whole blocks from where they lie; how many bytes that were."""
        num_bytes = len(source) // BLOCK_BYTES * BLOCK_BYTES
        start = 0
        while start < num_bytes:
            try:
                start += self._to_disk(source[start:num_bytes])
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._is_broken = False
                self._takes_lent = False  # a disk that wants addresses of other multiples
                break
        return start

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._is_broken:  # a second error would hide the first
                return
            if self._num_buffered % BLOCK_BYTES:
                _go_through_cache(self._descriptor)
            self._write_out()
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
            super().close()

    def _write_out(self) -> None:
        start = 0
        while start < self._num_buffered:
            start += self._to_disk(self._buffer[start : self._num_buffered])
        self._num_buffered = 0

    def _to_disk(self, data: np.ndarray) -> int:
        self._is_broken = True
        num_bytes = os.write(self._descriptor, data.data)
        self._is_broken = False
        return num_bytes


def pages(num_bytes: int) -> npt.NDArray[np.uint8]:
    """Memory that begins where a page does: O_DIRECT wants multiples of the block size."""
    memory = np.frombuffer(mmap.mmap(-1, max(1, num_bytes)), dtype=np.uint8)
    return memory[:num_bytes]


def to_sector(address: int) -> int:
    """Bytes from `address` to the next one that the disk can take data from."""
    return -address % _SECTOR_BYTES


def write_parts(descriptor: int, parts: Sequence[npt.NDArray[np.uint8]]) -> int:
    """How many bytes of `parts`, whole blocks all of them, were written. Raises OSError."""
    buffers = [part.data for part in parts]
    try:
        return os.writev(descriptor, buffers)
    except OSError as error:
        if error.errno != errno.EINVAL or not _go_through_cache(descriptor):
            raise
    return os.writev(descriptor, buffers)


def _go_through_cache(descriptor: int) -> bool:
    """Make the writes of `descriptor` ordinary ones; False if they were."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_O_DIRECT)
    return bool(flags & _O_DIRECT)


def open_direct(path: Path) -> int:
    """A descriptor of a new file that is written past the page cache, if possible."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags | _O_DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags, 0o666)
