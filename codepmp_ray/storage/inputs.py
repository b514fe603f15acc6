"""Files that are only read, by path or URI: sources of code, evaluation sets, lists.

A `RemoteFile` and a `RemoteFolder` do for a URI what `pathlib` does for a path, as far as readers
need it: any scheme of fsspec (s3, gs, abfs, hf, https for single files). Nothing is downloaded to
disk; Parquet is read in parts. A store that fails is a StorageError and ends the job, which
resumes; it is never taken for a damaged file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow.parquet as pq

from codepmp_ray.storage.remote_files import CheckedFile, explained, is_missing
from codepmp_ray.storage.uris import is_uri, scheme_of, strip_file_scheme

# Of one request; what reads lines goes on from there.
_READ_AHEAD_BYTES = 4 << 20
_MAGIC = "*?["
_WITH_QUERIES = ("http", "https")  # where "?" is no pattern


@dataclass(frozen=True)
class RemoteFile:
    """One file at a URI."""

    uri: str

    @property
    def suffix(self) -> str:
        return Path(self.uri).suffix

    def __str__(self) -> str:
        return self.uri

    def open(self, cache_type: str = "readahead") -> CheckedFile:
        """For parts of it; `cache_type` is fsspec's. Raises StorageError when it is not there."""
        with explained("read", self.uri):
            fs, path = _filesystem(self.uri)
            options = {"block_size": _READ_AHEAD_BYTES, "cache_type": cache_type}
            return CheckedFile(fs.open(path, "rb", **options), self.uri)

    def read_bytes(self) -> bytes:
        with explained("read", self.uri):
            fs, path = _filesystem(self.uri)
            return cast(bytes, fs.cat_file(path))


@dataclass(frozen=True)
class RemoteFolder:
    """What lies below a URI."""

    uri: str

    @property
    def name(self) -> str:
        return self.uri.rstrip("/").rpartition("/")[2]

    def __truediv__(self, name: str) -> RemoteFile:
        return RemoteFile(f"{self.uri.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.uri


InputFile = Path | RemoteFile
InputFolder = Path | RemoteFolder


@dataclass(frozen=True, slots=True)
class Listed:
    """A file below a folder or URI: its name there, its size, and a number that changes with its
    content, if there is one (of local files the time of change in ns)."""

    name: str
    size: int
    version: int

    @property
    def is_versioned(self) -> bool:
        return self.version != _NO_VERSION


def input_file(location: str) -> InputFile:
    """The file at a path ("~" is the home folder) or URI."""
    if is_uri(location):
        return RemoteFile(location)
    return Path(strip_file_scheme(location)).expanduser()


def open_binary(file: InputFile) -> BinaryIO:
    """For reading lines and parts."""
    if isinstance(file, Path):
        return open(file, "rb")
    return io.BufferedReader(file.open(), 1 << 20)


@contextmanager
def open_parquet(file: InputFile) -> Iterator[pq.ParquetFile]:
    """Only what is asked for is fetched."""
    if isinstance(file, Path):
        with pq.ParquetFile(file) as parquet:
            yield parquet
        return
    with (
        file.open(cache_type="none") as handle,
        pq.ParquetFile(handle, pre_buffer=True) as parquet,
    ):
        yield parquet


def list_remote(uri: str) -> tuple[RemoteFolder, list[Listed]]:
    """The folder and its files: all below `uri`, those that a pattern matches, or the one file.

    Raises StorageError when the store fails; the list is empty when there is nothing.
    """
    uri = uri.rstrip("/")
    with explained("list", uri):
        fs, path = _filesystem(uri)
        path = path.rstrip("/")
        if any(mark in uri for mark in _MAGIC) and scheme_of(uri) not in _WITH_QUERIES:
            found = cast(dict[str, Any], fs.glob(path, detail=True))
            fixed = uri[: min(uri.find(mark) for mark in _MAGIC if mark in uri)]
            root = fixed.rpartition("/")[0]
        elif (alone := _info(fs, path)) is not None and alone["type"] == "file":
            found, root = {path: alone}, uri.rpartition("/")[0]
        else:
            found, root = cast(dict[str, Any], _find(fs, path)), uri
        _, prefix = _filesystem(root)
    prefix = prefix.rstrip("/") + "/"
    return RemoteFolder(root), [
        Listed(name.removeprefix(prefix), int(info.get("size") or 0), _version(info))
        for name, info in found.items()
        if info["type"] == "file" and not name.endswith("/")
    ]


def first_remote(uri: str) -> RemoteFile | None:
    """A file at or below `uri`, or one that its pattern matches, without listing all; None where
    there is none. Raises StorageError when the store fails."""
    uri = uri.rstrip("/")
    with explained("list", uri):
        fs, path = _filesystem(uri)
        if any(mark in uri for mark in _MAGIC) and scheme_of(uri) not in _WITH_QUERIES:
            root, found = list_remote(uri)
            return root / found[0].name if found else None
        path = path.rstrip("/")
        alone = _info(fs, path)
        if alone is None or alone["type"] == "file":
            return RemoteFile(uri) if alone else None
        for folder, _, names in fs.walk(path):
            if names:
                return RemoteFile(f"{uri}{folder.removeprefix(path)}/{min(names)}")
    return None


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(uri, use_listings_cache=False)


def _info(fs: Any, path: str) -> dict[str, Any] | None:
    try:
        return fs.info(path)
    except Exception as error:
        if is_missing(error):
            return None
        raise


def _find(fs: Any, path: str) -> dict[str, Any]:
    try:
        return fs.find(path, detail=True)
    except Exception as error:
        if is_missing(error):
            return {}
        raise


def _version(info: dict[str, Any]) -> int:
    """From what the store says of the content: a tag or a generation, else the time of change."""
    known = next((info[name] for name in _VERSIONS if info.get(name)), "")
    return _number(str(known))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "blob_id", "LastModified", "last_modified")
_VERSIONS += ("Last-Modified",)
_NO_VERSION = _number("")
