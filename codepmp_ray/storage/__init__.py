"""Where a run directory lies: a folder on a file system, or a prefix in an object store.

base.py         what every store can do; the primitive that exactness needs is exclusive create
local.py        file systems, local or shared (NFS)
objects.py      object stores, through fsspec
node_copies.py  remote files on this machine's disk, for readers that need them by name
inputs.py       files that are only read: sources of code, evaluation sets
"""

from __future__ import annotations

from pathlib import Path

from codepmp_ray.storage.base import Store
from codepmp_ray.storage.local import LocalStore
from codepmp_ray.storage.uris import absolute, is_uri, strip_file_scheme

__all__ = ["LocalStore", "Store", "absolute", "is_uri", "open_store"]


def open_store(location: str | Path) -> Store:
    """The store behind a run directory or a folder below it; nothing is contacted.

    Raises StorageError for a URI scheme, or a version of its client, without exclusive create.
    """
    text = str(location)
    if not is_uri(text):
        return LocalStore(strip_file_scheme(text))
    # Imported here: fsspec costs a tenth of a second that reading a recipe should not.
    from codepmp_ray.storage.objects import ObjectStore

    return ObjectStore.open(text)
