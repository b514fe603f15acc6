"""A file that is written again and again from the same memory, with next to no Python.

A step beside the writing runs Python too, and waits for all of it that the writing runs: 0.15 s for
a thousand tensors. Where each of them goes in the file is known from the last time, so what is left
are a few calls of `writev`, which need no interpreter while they write.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from codepmp_ray.training import direct_files
from codepmp_ray.training.direct_files import BLOCK_BYTES, LENT_BYTES, to_sector

_CHUNK_BYTES = 64 << 20
_MAX_PARTS = 512  # of one writev; Linux takes 1,024
_Bytes = npt.NDArray[np.uint8]


class RepeatedFile:
    """`pieces` at their offsets, and zeros between them.

    The disk takes large pieces from where they lie; the others are put together in memory of the
    file's own. One writing at a time: `start`, then `write` in one thread and `release` in another.

    Args:
        pieces: (offset, bytes as a flat uint8 tensor on CPU), in order of their offsets. They are
            the memory whose content will be written, not copies of it.
    """

    def __init__(self, pieces: Iterable[tuple[int, torch.Tensor]]) -> None:
        own: list[tuple[int, torch.Tensor]] = []  # (offset among what is not lent, bytes)
        lent: list[tuple[int, torch.Tensor]] = []
        end = num_lent = 0
        for start, data in pieces:
            first, last = _lent_part(start, data)
            own.append((start - num_lent, data[:first]))
            for begin in range(first, last, _CHUNK_BYTES):
                part = data[begin : min(last, begin + _CHUNK_BYTES)]
                lent.append((start + begin - num_lent, part))
                num_lent += len(part)
            own.append((start + last - num_lent, data[last:]))
            end = start + len(data)
        self.num_bytes = end
        memory = direct_files.pages(-(-(end - num_lent) // BLOCK_BYTES) * BLOCK_BYTES)
        target = torch.from_numpy(memory)
        own = [(start, data) for start, data in own if len(data)]
        self._sources = [data for _, data in own]
        self._targets = [target[start : start + len(data)] for start, data in own]
        self._chunks = list(_chunks(memory, lent))
        self._copies: dict[int, _Bytes] = {}  # kept: new pages cost the steps more than all else
        self._changed = threading.Condition()
        self.start()

    def start(self) -> None:
        """A new writing begins; the content must not change until `release` has returned."""
        with self._changed:
            self._is_gathered = False
            self._waiting = list(range(len(self._chunks)))
            self._copied: set[int] = set()
            self._being_written: int | None = None

    def write(self, path: Path) -> None:
        """Write the content to a new file, which is on the disk then. Raises OSError."""
        try:
            descriptor = direct_files.open_direct(path)
            try:
                for number in range(len(self._chunks)):
                    _write_all(descriptor, self._next(number))
                self.close()
                os.ftruncate(descriptor, self.num_bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            self.close()

    def release(self) -> None:
        """Copy what the writing has not come to, and wait until it is through with what it has.

        From the last to the first, so that both meet.
        """
        while self._copy_one():
            pass
        with self._changed:
            self._changed.wait_for(
                lambda: self._being_written is None or self._being_written in self._copied
            )

    def close(self) -> None:
        """The writing is through with the content, or has failed."""
        with self._changed:
            self._waiting, self._being_written = [], None
            self._changed.notify_all()

    def _next(self, number: int) -> list[_Bytes]:
        with self._changed:
            self._gather()
            self._being_written = number
            self._changed.notify_all()
            if number in self._copied:
                return _with_copy(self._chunks[number], self._copies[number])
            self._waiting.remove(number)
            return [part for part, _ in self._chunks[number]]

    def _copy_one(self) -> bool:
        with self._changed:  # held while copying: the writing may come to this chunk
            if not self._waiting:
                return False
            self._gather()
            number = self._waiting.pop()
            lent = [part for part, is_lent in self._chunks[number] if is_lent]
            if number not in self._copies:
                self._copies[number] = direct_files.pages(sum(map(len, lent)))
            np.concatenate(lent or [_NOTHING], out=self._copies[number])
            self._copied.add(number)
            return True

    def _gather(self) -> None:
        if not self._is_gathered and self._sources:
            # One call that needs no interpreter.
            cast(Any, torch)._foreach_copy_(self._targets, self._sources)
        self._is_gathered = True


_NOTHING = np.empty(0, dtype=np.uint8)
_Chunk = list[tuple[_Bytes, bool]]  # in the file's order; whether the part is lent


def _lent_part(start: int, data: torch.Tensor) -> tuple[int, int]:
    """From where to where the disk can take `data`, which begins at `start` of the file."""
    first = -start % BLOCK_BYTES
    last = max(first, first + (len(data) - first) // BLOCK_BYTES * BLOCK_BYTES)
    if last - first < LENT_BYTES or to_sector(data.data_ptr() + first):
        return 0, 0
    return first, last


def _chunks(memory: _Bytes, lent: list[tuple[int, torch.Tensor]]) -> Iterator[_Chunk]:
    """The file in parts; each lent one comes after the `offset` first bytes of `memory`."""
    chunk: _Chunk = []
    done = 0
    for offset, data in [*lent, (len(memory), torch.empty(0, dtype=torch.uint8))]:
        if offset > done:
            chunk.append((memory[done:offset], False))
            done = offset
        if len(data):
            chunk.append((data.numpy(), True))
        if sum(len(part) for part, _ in chunk) >= _CHUNK_BYTES or len(chunk) >= _MAX_PARTS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _with_copy(chunk: _Chunk, copy: _Bytes) -> list[_Bytes]:
    found, start = [], 0
    for part, is_lent in chunk:
        found.append(copy[start : start + len(part)] if is_lent else part)
        start += len(part) * is_lent
    return found


def _write_all(descriptor: int, parts: list[_Bytes]) -> None:
    while parts:
        num_written = direct_files.write_parts(descriptor, parts)
        while parts and num_written >= len(parts[0]):
            num_written -= len(parts.pop(0))
        if num_written:
            parts[0] = parts[0][num_written:]
