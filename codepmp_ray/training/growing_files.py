"""Files that grow while a run goes on, in stores that append and in those that do not.

An object is written whole or not at all. What is appended to one is kept on this machine and put
there as it stands: when somebody asks (`flush`), and otherwise seldom enough that it takes no more
than a small share of the time, however long the file has become.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore, Store
from codepmp_ray.storage.scratch import ScratchFolder

_SHARE = 0.05  # of the time, for putting what has grown


class Turns:
    """When it is time to put something again, by how long it took the last time."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._next_s = time.monotonic() + poll_s

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next_s

    def took(self, seconds: float) -> None:
        self._next_s = time.monotonic() + max(self._poll_s, seconds / _SHARE)


class GrowingFile:
    """The file `name`, which holds `data` first.

    Raises StorageError when it cannot be written.
    """

    def __init__(self, store: Store, name: str, data: bytes) -> None:
        self._store, self._name = store, name
        self._local = store.path(name) if isinstance(store, LocalStore) else None
        self._whole = bytearray(data)
        self._turns = Turns(store.poll_s)
        store.put(name, data)

    def append(self, data: bytes) -> None:
        if self._local is not None:
            self._append(self._local, data, is_last=False)
            return
        self._whole += data
        if self._turns.is_due:
            self.flush()

    def flush(self) -> None:
        """What was appended is where a resumed run finds it, when this has returned."""
        if self._local is not None:
            self._append(self._local, b"", is_last=True)
            return
        start_s = time.monotonic()
        self._store.put(self._name, bytes(self._whole))
        self._turns.took(time.monotonic() - start_s)

    def _append(self, path: Path, data: bytes, is_last: bool) -> None:
        try:
            with open(path, "ab") as handle:
                handle.write(data)
                if is_last:
                    handle.flush()
                    os.fsync(handle.fileno())
        except OSError as error:
            raise StorageError(
                f"Cannot write {path}: {error.strerror}.",
                "Free disk space and run the same command; training resumes.",
            ) from error


class GrowingFolder:
    """The folder `name` of files that a library writes by name, at `path` on this machine."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._scratch: ScratchFolder | None = None
        if isinstance(store, LocalStore):
            self.path = store.path(name)
        else:
            self._scratch = ScratchFolder()
            self.path = self._scratch.path
        self._turns = Turns(store.poll_s)

    def show(self) -> None:
        """Put the files where they belong, if it is time."""
        if self._scratch is not None and self._turns.is_due:
            self._put()

    def close(self) -> None:
        """Put them a last time."""
        if self._scratch is not None:
            self._put()
            self._scratch.remove()

    def _put(self) -> None:
        start_s = time.monotonic()
        for path in self.path.iterdir():
            self._store.put(f"{self._name}/{path.name}", path.read_bytes())
        self._turns.took(time.monotonic() - start_s)
