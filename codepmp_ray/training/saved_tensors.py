"""The bytes of `torch.save` for one tensor, without its Python.

`torch.save` runs half a millisecond of Python for each tensor, however small, and the steps beside
a checkpoint wait for the interpreter as often as it has tensors. But all it writes around the data
follows from shape and dtype: it is made once for each. Only large tensors are left to it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any, NamedTuple, cast

import torch
from torch.serialization import get_crc32_options, set_crc32_options

# What is made once costs the memory of a tensor, and for a large one torch.save's Python is little.
_LARGE_BYTES = 256 << 20


class Frame(NamedTuple):
    """What stands before a tensor's data, and what after it."""

    before: bytes
    after: bytes


def write_tensor(tensor: torch.Tensor, stream: IO[Any] | io.IOBase) -> None:
    """Write what `torch.save` writes for a plain, contiguous copy of `tensor`, without checksums.

    `torch.load` does not look at those.
    """
    tensor = tensor.detach().cpu().contiguous()  # nothing is copied that is so already
    frame = frame_of(tensor)
    if frame is None:
        if tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()  # torch.save writes the whole storage
        with _no_checksums():
            torch.save(tensor, cast(IO[bytes], stream))
        return
    out = cast(IO[bytes], stream)
    out.write(frame.before)
    if tensor.numel():
        out.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
    out.write(frame.after)


def frame_of(tensor: torch.Tensor) -> Frame | None:
    """What `write_tensor` writes around the data; None where it leaves that to `torch.save`."""
    if tensor.nbytes > _LARGE_BYTES:
        return None
    return _frame(tuple(tensor.shape), tensor.dtype)


def num_bytes_before(tensor: torch.Tensor) -> int:
    """What `write_tensor` writes before the data; 0 for a tensor that it leaves to `torch.save`."""
    frame = frame_of(tensor)
    return 0 if frame is None else len(frame.before)


@lru_cache(maxsize=1024)
def _frame(shape: tuple[int, ...], dtype: torch.dtype) -> Frame:
    like = torch.empty(shape, dtype=dtype)
    buffer = io.BytesIO()
    with _no_checksums():
        torch.save(like, buffer)
    buffer.seek(0)
    reader: Any = torch._C.PyTorchFileReader(buffer)
    start = reader.get_record_offset("data/0")
    saved = buffer.getvalue()
    return Frame(saved[:start], saved[start + like.nbytes :])


@contextmanager
def _no_checksums() -> Iterator[None]:
    """For this thread: each has an option of its own."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
