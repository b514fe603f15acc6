"""Digests of files and folders that settings name: their content decides what a stage makes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import is_uri

_CHUNK_BYTES = 1 << 20


def content_digest(path: str | None) -> str:
    """sha256 of a file, or of the names and contents of a folder's files.

    What is missing counts as empty: the job that reads it refuses it. A file is read once per
    process and version (size and time of change), since fingerprints are asked for often; one at
    a URI once per process. Raises StorageError for a store that does not answer.
    """
    if not path:
        return hashlib.sha256(b"").hexdigest()
    if is_uri(path):
        return _remote_digest(path)
    place = Path(path).expanduser()
    if not place.is_dir():
        return _file_digest(place)
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(place)}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def content_digests(paths: Iterable[str | None]) -> list[str]:
    return [content_digest(path) for path in paths]


def _file_digest(file: Path) -> str:
    try:
        found = file.stat()
        return _digest_of_version(file, found.st_size, found.st_mtime_ns, found.st_ino)
    except OSError:
        return hashlib.sha256(b"").hexdigest()


@lru_cache(maxsize=64)
def _remote_digest(uri: str) -> str:
    from codepmp_ray.storage.inputs import RemoteFile
    from codepmp_ray.storage.remote_errors import is_missing

    try:
        data = RemoteFile(uri).read_bytes()
    except StorageError as error:
        if error.__cause__ is None or not is_missing(error.__cause__):
            raise
        data = b""
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=4096)
def _digest_of_version(file: Path, size: int, mtime_ns: int, inode: int) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
