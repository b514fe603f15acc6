"""A file that is written again and again from the same memory, with next to no Python.

A step beside the writing runs Python too, and waits for all of it that the writing runs: 0.15 s for
a thousand tensors. Where each of them goes in the file is known from the last time, so what is left
are a few calls of `writev`, which need no interpreter while they write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from codepmp_ray.training import direct_files
from codepmp_ray.training.direct_files import BLOCK_BYTES, LENT_BYTES, to_sector
from codepmp_ray.training.handover import Handover

_CHUNK_BYTES = 64 << 20
_MAX_PARTS = 512  # of one writev; Linux takes 1,024
_Bytes = npt.NDArray[np.uint8]


class RepeatedFile:
    """`pieces` at their offsets, and zeros between them.

    The disk takes large pieces from where they lie; the others are put together in memory of the
    file's own. One writing at a time: `start`, then `write` in one thread and `release`, as
    Handover's, in another.

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
        self._handover = Handover(self._copy)
        self.release, self.close = self._handover.release, self._handover.close
        self.start()

    def start(self) -> None:
        """A new writing begins; the content must not change until `release` has returned."""
        self._handover.begin([_OWN, *range(len(self._chunks))])

    def write(self, path: Path) -> None:
        """Write the content to a new file, which is on the disk then. Raises OSError."""
        try:
            descriptor = direct_files.open_direct(path)
            try:
                if not self._handover.take(_OWN):
                    self._copy(_OWN)
                for number, chunk in enumerate(self._chunks):
                    is_copied = self._handover.take(number)
                    copy = self._copies[number] if is_copied else None
                    _write_all(descriptor, _parts(chunk, copy))
                self.close()
                os.ftruncate(descriptor, self.num_bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            self.close()

    def _copy(self, number: int) -> None:
        if number == _OWN:
            if self._sources:  # in one call, which needs no interpreter
                cast(Any, torch)._foreach_copy_(self._targets, self._sources)
            return
        lent = [part for part, is_lent in self._chunks[number] if is_lent]
        if number not in self._copies:
            self._copies[number] = direct_files.pages(sum(map(len, lent)))
        np.concatenate(lent or [_NOTHING], out=self._copies[number])


_OWN = -1  # the memory of the file's own, in which small pieces are put together
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


def _parts(chunk: _Chunk, copy: _Bytes | None) -> list[_Bytes]:
    """What is written of `chunk`, with `copy` in place of what it has lent."""
    if copy is None:
        return [part for part, _ in chunk]
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
