"""Checkpoint folders as torch.distributed.checkpoint writes and reads them, wherever they lie.

On a file system the files go past the page cache (direct_files.py), in an object store they are
uploaded while they are written (torch's own adapter of fsspec). Either way torch's readers read
them. Its metadata is a pickle: only folders that this trainer wrote are read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.checkpoint._fsspec_filesystem import FileSystem as RemoteFileSystem
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader
from torch.distributed.checkpoint.filesystem import (
    DEFAULT_SUFFIX,
    FileSystem,
    FileSystemReader,
    FileSystemWriter,
    _StorageInfo,
)
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from codepmp_ray.storage import is_uri
from codepmp_ray.training.direct_files import DirectFile
from codepmp_ray.training.saved_tensors import num_bytes_before, write_tensor

# As the run's store: other processes write there too.
_NO_CACHE = {"use_listings_cache": False}


class CheckpointWriter(FileSystemWriter):
    """Writes one file a rank to the folder or URI `location`.

    Args:
        when_read: called when nothing of the state is needed any more, before the disk has it all.

    Attributes:
        results: where each item of this rank was written.
    """

    def __init__(self, location: str, when_read: Callable[[], None] = lambda: None) -> None:
        super().__init__(location, sync_files=False)  # the files do that themselves
        self.fs = RemoteFileSystem() if is_uri(location) else _DirectFileSystem()
        self.path = self.fs.init_path(location, **(_NO_CACHE if is_uri(location) else {}))
        self._when_read = when_read
        self.results: list[WriteResult] = []

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        name = f"{plan.storage_data.prefix}0{DEFAULT_SUFFIX}"
        self.results = results = []
        with self.fs.create_stream(self.fs.concat_path(self.path, name), "wb") as file:
            for item in plan.items:
                data = planner.resolve_data(item)
                if isinstance(data, torch.Tensor) and isinstance(file, DirectFile):
                    file.place(data.data_ptr(), data.nbytes, num_bytes_before(data))
                start = file.tell()
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

    def storage_meta(self) -> StorageMeta:
        # Without a name: it would be that of another checkpoint where metadata is written again.
        return StorageMeta()


def checkpoint_reader(location: str) -> FileSystemReader:
    """What `torch.distributed.checkpoint.load` reads the folder or URI `location` with."""
    if is_uri(location):
        return FsspecReader(location, **_NO_CACHE)
    return FileSystemReader(location)


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
