"""Digests of what settings name: data files by their content, objects by what their store says.

Fingerprints are asked for by every job, often. So a local file is read once per machine and version
(path, size, time of change, inode): digests of large ones lie in the cache folder, see
storage/node_copies.py. Of what lies at a URI only the listing is asked; its content is read, in
parts, where the store tells no version.

    <cache>/digests/<key>   the hex digits
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore, is_uri
from codepmp_ray.storage.uris import strip_file_scheme

_CHUNK_BYTES = 1 << 20
_NOTHING = hashlib.sha256(b"").hexdigest()
# What is smaller is read faster than its digest is found.
_REMEMBERED_BYTES = 1 << 22
# A file may change again within one tick of its time of change.
_SETTLED_NS = 2_000_000_000
_known: dict[str, str] = {}  # of this process, by key


def content_digest(path: str | None) -> str:
    """sha256 of a file, or of the names and contents of a folder's files; at a URI of its listing.

    What is missing counts as empty: the job that reads it refuses it. Raises StorageError for a
    store that does not answer.
    """
    if not path:
        return _NOTHING
    if is_uri(path):
        return _listing_digest(path)
    place = Path(strip_file_scheme(path)).expanduser()
    if not place.is_dir():
        return _file_digest(place)
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(place)}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def content_digests(paths: Iterable[str | None]) -> list[str]:
    return [content_digest(path) for path in paths]


def remembered(version: list[Any], num_bytes: int, make: Callable[[], str]) -> str:
    """`make()`, once per machine for this version of something of `num_bytes`.

    Args:
        version: JSON values; they begin with the kind of digest, name the place, and change with
            what lies there.
    """
    key = hashlib.sha256(json.dumps(version).encode()).hexdigest()
    if key in _known:
        return _known[key]
    if num_bytes < _REMEMBERED_BYTES:
        _known[key] = make()
        return _known[key]
    from codepmp_ray.storage.node_copies import cache_dir

    cache, file = LocalStore(cache_dir() / "digests"), key[:32]
    found = ""
    with suppress(StorageError, UnicodeDecodeError):
        found = cache.read_bytes(file).decode("ascii")
    if len(found) != len(_NOTHING):
        found = make()
        with suppress(StorageError):  # somebody without a place for it goes on without
            cache.put(file, found.encode())
    _known[key] = found
    return found


def is_settled(time_of_change_ns: int) -> bool:
    """Whether a later change of the file would show in its time of change."""
    return time.time_ns() - time_of_change_ns > _SETTLED_NS


def _file_digest(file: Path) -> str:
    try:
        found = file.stat()
        if not is_settled(found.st_mtime_ns):
            return _read(file)
        facts = [found.st_size, found.st_mtime_ns, found.st_ino]
        version = ["content", str(file.absolute()), *facts]
        return remembered(version, found.st_size, lambda: _read(file))
    except OSError:
        return _NOTHING


def _read(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _listing_digest(uri: str) -> str:
    """Of the names, sizes and versions of what lies at `uri`; asked for once per process."""
    from codepmp_ray.storage.inputs import list_remote

    root, files = list_remote(uri)
    if not files:
        return _NOTHING
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        version = str(file.version) if file.is_versioned else _remote_digest(root / file.name)
        digest.update(f"{file.name}\0{file.size}\0{version}\n".encode())
    return digest.hexdigest()


def _remote_digest(file: Any) -> str:
    digest = hashlib.sha256()
    with file.open() as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
