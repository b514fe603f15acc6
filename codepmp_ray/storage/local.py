"""Files on a local or network file system.

Exclusive create is a hard link of a finished file to the final name, which also means that no
reader ever sees half a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from codepmp_ray.errors import StorageError
from codepmp_ray.storage.base import DAMAGE_REMEDY, FileFacts, Store

if TYPE_CHECKING:  # as in base.py
    import pyarrow as pa
    from pyarrow.fs import FileSystem
# What file systems without hard links answer to one.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalStore(Store):
    """Files below the folder `root`."""

    num_parallel = 1
    poll_s = 1.0

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    @property
    def uri(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        return self.root / name

    def locate(self, name: str) -> str:
        return str(self.path(name))

    def sub(self, folder: str) -> LocalStore:
        return LocalStore(self.path(folder))

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def list(self, folder: str) -> list[str]:
        try:
            entries = os.listdir(self.path(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"Cannot list {self.path(folder)}: {error.strerror}.") from error
        return sorted(entry for entry in entries if not entry.startswith("."))

    def files(self, folder: str) -> dict[str, FileFacts]:
        found = {}
        for name in self.list(folder):
            path = self.path(folder) / name
            if path.is_file():
                facts = path.stat()
                found[name] = FileFacts(facts.st_size, str(facts.st_mtime_ns))
        return found

    def read_bytes(self, name: str) -> bytes:
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise StorageError(f"Cannot read {self.path(name)}: {error.strerror}.") from error

    def download(self, name: str, path: Path) -> None:
        try:
            shutil.copyfile(self.path(name), path)
        except OSError as error:
            raise StorageError(
                f"Cannot copy {self.path(name)} to {path}: {error.strerror}."
            ) from error

    def delete(self, name: str) -> None:
        try:
            self.path(name).unlink(missing_ok=True)
        except OSError as error:
            raise self._write_error(name, error) from error

    def delete_tree(self, folder: str) -> None:
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def put(self, name: str, data: bytes | memoryview) -> None:
        scratch = self._write_scratch(name, data)
        try:
            os.replace(scratch, self.path(name))
        except OSError as error:
            raise self._write_error(name, error) from error
        finally:
            scratch.unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """On the same file system, where a move is a rename."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix=".scratch-", dir=self.root)
        except OSError as error:
            raise self._write_error("", error) from error
        with folder as path:
            yield Path(path)

    def take(self, name: str, path: Path) -> None:
        target = self.path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
            try:
                os.replace(path, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                aside = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
                try:
                    shutil.copyfile(path, aside)
                    os.replace(aside, target)
                finally:
                    aside.unlink(missing_ok=True)
                path.unlink()
        except OSError as error:
            raise self._write_error(name, error) from error

    def put_exclusive(self, name: str, data: bytes) -> bool:
        scratch = self._write_scratch(name, data)
        try:
            os.link(scratch, self.path(name))
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise StorageError(
                    f"{self.path(name)} cannot be created exclusively: its file system has no hard "
                    f"links ({error.strerror}).",
                    "Take a local disk, NFS or the object store itself (s3://...), not a mount of "
                    "it (gcsfuse, Mountpoint for S3) nor exFAT or SMB.",
                ) from error
            raise self._write_error(name, error) from error
        finally:
            scratch.unlink(missing_ok=True)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path(name)) as file:
                return file.read(columns)
        except FileNotFoundError as error:
            raise StorageError(f"Cannot read {self.path(name)}: no such file.") from error
        except (pa.ArrowException, OSError) as error:  # pyarrow reports damage as either
            raise StorageError(
                f"{self.path(name)} is not a readable Parquet file ({error}).",
                DAMAGE_REMEDY,
            ) from error

    def read_table_metadata(self, name: str) -> dict[bytes, bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_metadata(self.path(name)).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"{self.path(name)} is not a readable Parquet file.", DAMAGE_REMEDY
            ) from error

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """The lock ends with its holder, killed or not."""
        with open(self.path(name), "wb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StorageError(
                    f"Another process is changing {self.root}.", "Wait until it is done."
                ) from error
            yield

    def arrow(self) -> tuple[str, FileSystem]:
        from pyarrow.fs import LocalFileSystem

        return str(self.root), LocalFileSystem()

    def require_ready(self) -> None:
        """A file system creates exclusively, and says at the first write what is wrong with it."""

    def _write_scratch(self, name: str, data: bytes | memoryview) -> Path:
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
            "Free disk space, make the folder writable or choose another run_dir; the job resumes "
            "where it stopped.",
        )
