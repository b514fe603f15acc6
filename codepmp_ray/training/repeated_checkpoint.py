"""A checkpoint of a state that was saved before, and has its tensors where it had them then.

torch.distributed.checkpoint plans every checkpoint anew, and tells the ranks where all of it went.
Where only the content has changed, the outcome is that of the last time: each rank writes its file
from the same memory again, and rank 0 the same metadata.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.checkpoint.utils import _DistWrapper

from codepmp_ray.training.direct_files import DirectFile
from codepmp_ray.training.repeated_file import RepeatedFile
from codepmp_ray.training.saved_tensors import frame_of

_METADATA = ".metadata"  # torch's name
_KeyPath = Sequence[str | int]


@dataclass
class _Value:
    """What is no tensor (a learning rate, a name): where it is, what it was, and its bytes."""

    path: _KeyPath
    value: Any
    saved: torch.Tensor


class RepeatedCheckpoint:
    """This rank's part of a checkpoint, as it was written to a folder; made by `repeated`."""

    def __init__(self, file: RepeatedFile, name: str, values: list[_Value], metadata: bytes):
        self.file = file
        self._name, self._values, self._metadata = name, values, metadata

    def takes(self, state: dict[str, Any]) -> bool:
        """Whether `state` still fits: what is no tensor has to have as many bytes as before.

        The next `write` is one of these values.
        """
        for known in self._values:
            value = _value_at(known.path, state)
            if value == known.value and type(value) is type(known.value):
                continue
            saved = _saved(value)
            if len(saved) != len(known.saved):
                return False
            known.saved.copy_(saved)
            known.value = value
        return True

    def write(self, folder: Path, group: dist.ProcessGroup) -> None:
        """Collective over `group`, like torch's save. Raises CheckpointException on every rank."""

        def write_file() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self.file.write(folder / self._name)

        ranks = _DistWrapper(group, True, 0)
        ranks.all_reduce("write", write_file, lambda _: self._write_metadata(folder))

    def _write_metadata(self, folder: Path) -> None:
        unfinished = folder / f"{_METADATA}.tmp"
        with DirectFile(unfinished) as file:
            file.write(self._metadata)
        os.replace(unfinished, folder / _METADATA)


def repeated(
    folder: Path,
    state: dict[str, Any],
    written: Sequence[tuple[WriteItem, WriteResult]],
    paths: dict[str, Any],
    place: Callable[[WriteItem], torch.Tensor],
) -> RepeatedCheckpoint | None:
    """What was just written to `folder`, to be written again; None if that cannot be done.

    Args:
        paths: from the name of an item to where it is in `state`.
        place: the tensor of an item in the memory that updates change.
    """
    pieces: list[tuple[int, torch.Tensor]] = []
    values: list[_Value] = []
    name = ""
    for item, result in written:
        name, start = result.storage_data.relative_path, result.storage_data.offset
        if item.type == WriteItemType.BYTE_IO:
            path = paths[item.index.fqn]
            value = _value_at(path, state)
            saved = _saved(value)
            values.append(_Value(path, value, saved))
            parts = [saved]
        else:
            tensor = place(item)
            frame = frame_of(tensor)
            if frame is None or not tensor.is_contiguous() or tensor.device.type != "cpu":
                return None
            content = tensor.reshape(-1).view(torch.uint8)
            parts = [_bytes(frame.before), content, _bytes(frame.after)]
        if sum(map(len, parts)) != result.size_in_bytes:
            return None
        for part in parts:
            pieces.append((start, part))
            start += len(part)
    metadata = (folder / _METADATA).read_bytes() if dist.get_rank() == 0 else b""
    return RepeatedCheckpoint(RepeatedFile(pieces), name, values, metadata)


def _value_at(path: _KeyPath, state: Any) -> Any:
    for key in path:
        state = state[key]
    return state


def _saved(value: Any) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return _bytes(buffer.getvalue())


def _bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
