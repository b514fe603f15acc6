"""Temporary folders that a killed process does not leave behind for good.

    $TMPDIR/codepmp-scratch-<id>/        what is being made
    $TMPDIR/codepmp-scratch-<id>.lock    locked as long as its process lives

The kernel lets go of the lock of a process that is killed; the next folder that is made on this
machine removes what such processes left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
import weakref
from contextlib import suppress
from pathlib import Path

_PREFIX = "codepmp-scratch-"


class ScratchFolder:
    """An empty folder at `path`, until `remove` or the end of the process.

    Raises OSError when it cannot be made.
    """

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        _remove_orphans(base)
        name = f"{_PREFIX}{uuid.uuid4().hex}"
        self.path, lock_path = base / name, base / f"{name}.lock"
        # Locked before it has its name: nobody finds it without its lock.
        unnamed = base / f".{name}"
        lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(unnamed, lock_path)
            self.path.mkdir(0o700)
        except OSError:
            for path in (unnamed, lock_path):
                path.unlink(missing_ok=True)
            os.close(lock)
            raise
        self.remove = weakref.finalize(self, _remove, self.path, lock_path, lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *failure: object) -> None:
        self.remove()


def _remove(path: Path, lock_path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():  # else a later one tries again
        lock_path.unlink(missing_ok=True)
    os.close(lock)


def _remove_orphans(base: Path) -> None:
    for lock_path in base.glob(f"{_PREFIX}*.lock"):
        # Another user's, or gone by now, or its process lives.
        with suppress(OSError):
            lock = os.open(lock_path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            _remove(lock_path.with_suffix(""), lock_path, lock)
