"""What torch.distributed.checkpoint writes and reads a folder or an object store with.

Its metadata is a pickle: only folders that this trainer wrote are read.
"""

from __future__ import annotations

from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

from codepmp_ray.storage import is_uri


def checkpoint_writer(location: str) -> FileSystemWriter:
    """Writes one file a rank to the folder or URI `location`."""
    if is_uri(location):
        # There is no file to be synchronised; torch would synchronise all disks of the node. And
        # listings are not kept: other processes write there too.
        return FsspecWriter(location, sync_files=False, use_listings_cache=False)
    return FileSystemWriter(location)


def checkpoint_reader(location: str) -> FileSystemReader:
    """What `torch.distributed.checkpoint.load` reads the folder or URI `location` with."""
    if is_uri(location):
        return FsspecReader(location, use_listings_cache=False)
    return FileSystemReader(location)
