"""Objects below a prefix of an object store, through fsspec.

Nothing is cached between calls: other processes write here too. A request whose reply is lost may
be sent again by the client, and is then refused because of itself; `put_exclusive` reads back what
is there and recognises its own bytes. Credentials and endpoints are those of the clients' own
environment (AWS_ENDPOINT_URL and so on).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

from codepmp_ray.errors import StorageError
from codepmp_ray.storage.base import DAMAGE_REMEDY, FileFacts, Store
from codepmp_ray.storage.remote_files import (
    CheckedFile,
    explained,
    is_conflict,
    is_missing,
    is_missing_bucket,
    says_exists,
)
from codepmp_ray.storage.scratch import ScratchFolder

_MAGIC = "*?["
# What tells versions apart in listings of s3fs, gcsfs and adlfs. Other facts change by reading.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "content_md5")
# S3 answers 409 while another request about the same name is under way, and asks to try again.
_NUM_CONFLICTS = 8
_FIRST_WAIT_S = 0.1


class ObjectStore(Store):
    """Objects below `uri`; `prefix` is what `fs` calls it."""

    num_parallel = 32
    poll_s = 5.0

    def __init__(self, fs: fsspec.AbstractFileSystem, prefix: str, uri: str) -> None:
        self._fs, self._prefix, self._uri = fs, prefix.rstrip("/"), uri.rstrip("/")

    @property
    def uri(self) -> str:
        return self._uri

    @classmethod
    def open(cls, uri: str) -> ObjectStore:
        """The store at `uri`. Raises StorageError when it cannot hold a run."""
        from codepmp_ray.storage.backends import require_backend

        require_backend(uri)
        if any(mark in uri for mark in _MAGIC):
            raise StorageError(f"{uri!r}: a run's URI must not have any of {' '.join(_MAGIC)}.")
        with explained("open", uri):
            fs, prefix = url_to_fs(uri, use_listings_cache=False)
        if not prefix.strip("/"):
            raise StorageError(f"{uri!r} names no bucket.", "Write scheme://bucket/folder.")
        return cls(fs, prefix, uri)

    def locate(self, name: str) -> str:
        return f"{self._uri}/{name}" if name else self._uri

    def sub(self, folder: str) -> ObjectStore:
        return ObjectStore(self._fs, self._key(folder), self.locate(folder))

    def exists(self, name: str) -> bool:
        with explained("look up", self.locate(name)):
            return self._fs.exists(self._key(name))

    def list(self, folder: str) -> list[str]:
        return sorted(self._entries(folder))

    def files(self, folder: str) -> dict[str, FileFacts]:
        return {
            name: FileFacts(entry["size"], _version(entry))
            for name, entry in sorted(self._entries(folder).items())
            if entry["type"] == "file"
        }

    def _entries(self, folder: str) -> dict[str, dict[str, Any]]:
        """What the store says of everything in `folder`, by name."""
        key = self._key(folder)
        with explained("list", self.locate(folder)):
            try:
                entries = self._fs.ls(key, detail=True)
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return {}
        # Some tools mark a folder with an empty object called like it.
        inside = {entry["name"].rstrip("/"): entry for entry in entries}
        inside.pop(key, None)
        named = {path.rpartition("/")[2]: entry for path, entry in inside.items()}
        return {name: entry for name, entry in named.items() if not name.startswith(".")}

    def read_bytes(self, name: str) -> bytes:
        with explained("read", self.locate(name)):
            return cast(bytes, self._fs.cat_file(self._key(name)))

    def download(self, name: str, path: Path) -> None:
        with explained("read", self.locate(name)):
            try:
                self._fs.get_file(self._key(name), str(path))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise
                raise StorageError(
                    f"Cannot write {path.parent}: {error.strerror}.",
                    "Make room there, or set CODEPMP_CACHE to a folder with more.",
                ) from error

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        if columns is None:
            with self._damage_explained(name), pa.BufferReader(self.read_bytes(name)) as data:
                return pq.ParquetFile(data).read()
        with self._damage_explained(name), self._open(name) as file:
            return pq.ParquetFile(file, pre_buffer=True).read(columns)

    def read_table_metadata(self, name: str) -> dict[bytes, bytes]:
        with self._damage_explained(name), self._open(name) as file:
            return pq.read_metadata(file).metadata or {}

    def put(self, name: str, data: bytes | memoryview) -> None:
        with explained("write", self.locate(name)):
            self._fs.pipe_file(self._key(name), bytes(data))  # clients refuse other buffers

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        try:
            folder = ScratchFolder()
        except OSError as error:
            raise StorageError(
                f"Cannot make a folder for temporary files: {error.strerror or error}.",
                "Set TMPDIR to a folder of a local disk with room.",
            ) from error
        with folder as path:
            yield path

    def take(self, name: str, path: Path) -> None:
        with explained("write", self.locate(name)):
            self._fs.put_file(str(path), self._key(name))
        path.unlink()

    def put_exclusive(self, name: str, data: bytes) -> bool:
        for attempt in range(_NUM_CONFLICTS):
            with explained("write", self.locate(name)):
                try:
                    self._fs.pipe_file(self._key(name), data, mode="create")
                    return True
                except Exception as error:
                    if not says_exists(error) and not is_conflict(error):
                        raise
                    refused = says_exists(error)
            found = self._read_if_there(name) if refused else None
            if found is not None:
                return found == data
            time.sleep(_FIRST_WAIT_S * 2**attempt)
        raise StorageError(
            f"Cannot write {self.locate(name)}: the store reports a conflict again and again.",
            "The same command resumes.",
        )

    def delete(self, name: str) -> None:
        with explained("delete", self.locate(name)):
            try:
                self._fs.rm_file(self._key(name))
            except Exception as error:
                if not is_missing(error):
                    raise

    def delete_tree(self, folder: str) -> None:
        with explained("delete", self.locate(folder)):
            try:
                self._fs.rm(self._key(folder), recursive=True)
            except Exception as error:
                if not is_missing(error) or is_missing_bucket(error):
                    raise

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """An object that names its holder. It outlives one that is killed: a person decides."""
        holder = {"host": platform.node(), "pid": os.getpid(), "time": _now()}
        token = {**holder, "token": uuid.uuid4().hex}
        if not self.put_exclusive(name, json.dumps(token).encode()):
            raise StorageError(
                f"{self._holder(name)} is changing {self._uri}.",
                f"Wait until it is done. If it is dead, delete {self.locate(name)} and run the "
                "command again.",
            )
        try:
            yield
        finally:
            self.delete(name)

    def arrow(self) -> tuple[str, FileSystem]:
        return self._prefix, PyFileSystem(FSSpecHandler(self._fs))

    def require_ready(self) -> None:
        """Try it: some servers that speak S3 ignore the condition and overwrite."""
        name = f".probe-{uuid.uuid4().hex}"
        try:
            self.put_exclusive(name, b"first")
            if self.put_exclusive(name, b"second"):
                raise StorageError(
                    f"{self._uri}: the store creates an object that is there already, so that two "
                    "writers would overwrite each other.",
                    "Use a store with conditional writes (If-None-Match), or a shared folder.",
                )
        finally:
            self.delete(name)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if name else self._prefix

    def _open(self, name: str) -> CheckedFile:
        """For parts of a file: each read is one request, and nothing is read ahead."""
        location = self.locate(name)
        with explained("read", location):
            return CheckedFile(self._fs.open(self._key(name), "rb", cache_type="none"), location)

    def _read_if_there(self, name: str) -> bytes | None:
        with explained("read", self.locate(name)):
            try:
                return cast(bytes, self._fs.cat_file(self._key(name)))
            except FileNotFoundError:
                return None

    def _holder(self, name: str) -> str:
        try:
            record: dict[str, Any] = json.loads(self._read_if_there(name) or b"{}")
        except ValueError:
            record = {}
        if "pid" not in record:
            return "Another process"
        return f"Process {record['pid']} on {record['host']}, since {record['time']},"

    @contextmanager
    def _damage_explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:  # pyarrow reports damage as either
            raise StorageError(
                f"{self.locate(name)} is not a readable Parquet file ({error}).",
                DAMAGE_REMEDY,
            ) from error


def _version(entry: dict[str, Any]) -> str:
    """Of one object: an ETag, hash or number, or all that the store lists, times included."""
    named = {name: entry[name] for name in _VERSIONS if entry.get(name)} or entry
    facts = sorted((name, str(value)) for name, value in named.items())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
