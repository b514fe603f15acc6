"""A run directory's file operations, with the one primitive that exactness needs: exclusive create.

`put_exclusive` succeeds for one caller only, however many race. On a file system it is a hard link
of a finished file to the final name, which also means that no reader ever sees half a file.
Object stores have the same primitive (`If-None-Match: *`); they join as further classes here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.errors import StorageError


class LocalStore:
    """Files below `root` on a local or network file system. Paths given to methods are relative."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    @property
    def uri(self) -> str:
        """The folder as `open_store` takes it, on any machine of the cluster."""
        return str(self.root)

    def sub(self, folder: str) -> LocalStore:
        """The store of a folder below this one."""
        return LocalStore(self.root / folder)

    def path(self, name: str) -> Path:
        return self.root / name

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def list(self, folder: str) -> list[str]:
        """Names (not paths) of the entries of `folder`, sorted, without hidden scratch files."""
        try:
            entries = os.listdir(self.path(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"Cannot list {self.path(folder)}: {error.strerror}.") from error
        return sorted(entry for entry in entries if not entry.startswith("."))

    def read_bytes(self, name: str) -> bytes:
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise StorageError(f"Cannot read {self.path(name)}: {error.strerror}.") from error

    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def delete_tree(self, folder: str) -> None:
        """Delete everything below `folder`, if it is there."""
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def put(self, name: str, data: bytes) -> None:
        """Write `data` at `name`, replacing what was there, atomically."""
        scratch = self._write_scratch(name, data)
        try:
            os.replace(scratch, self.path(name))
        except OSError as error:
            raise self._write_error(name, error) from error
        finally:
            scratch.unlink(missing_ok=True)

    def put_exclusive(self, name: str, data: bytes) -> bool:
        """Create `name` with `data`; False, and nothing changes, if it was there already."""
        scratch = self._write_scratch(name, data)
        try:
            os.link(scratch, self.path(name))
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise self._write_error(name, error) from error
        finally:
            scratch.unlink(missing_ok=True)

    def put_table(self, name: str, table: pa.Table) -> None:
        """Write `table` as Parquet at `name`, atomically."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.put(name, sink.getvalue().to_pybytes())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file at `name`; only `columns` are read from disk when they are given."""
        try:
            with pq.ParquetFile(self.path(name)) as file:
                return file.read(columns)
        except FileNotFoundError as error:
            raise StorageError(f"Cannot read {self.path(name)}: no such file.") from error
        except (pa.ArrowException, OSError) as error:  # pyarrow reports damage as either
            raise StorageError(
                f"{self.path(name)} is not a readable Parquet file ({error}).",
                "Delete the stage's folder and run the stage again.",
            ) from error

    def read_table_metadata(self, name: str) -> dict[bytes, bytes]:
        """Key-value metadata of the Parquet file at `name`; only its footer is read."""
        try:
            return pq.read_metadata(self.path(name)).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{self.path(name)} is not a readable Parquet file.") from error

    def _write_scratch(self, name: str, data: bytes) -> Path:
        target = self.path(name)
        scratch = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(scratch, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        except BaseException as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            if isinstance(error, OSError):
                raise self._write_error(name, error) from error
            raise
        return scratch

    def _write_error(self, name: str, error: OSError) -> StorageError:
        return StorageError(
            f"Cannot write {self.path(name)}: {error.strerror}.",
            "Free disk space or choose another run_dir; the job resumes where it stopped.",
        )


def open_store(uri: str | Path) -> LocalStore:
    """The store behind a run directory.

    Raises StorageError for a URI scheme that this version cannot commit to exclusively.
    """
    text = str(uri)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif "://" in text:
        raise StorageError(
            f"run_dir={text!r}: the scheme {text.split('://')[0]!r} is not supported.",
            "Use a local or shared (NFS) folder.",
        )
    return LocalStore(text)
