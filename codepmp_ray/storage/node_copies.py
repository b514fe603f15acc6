"""Copies of remote files on this machine's disk, for readers that need files by name.

    <cache>/remote/<key>/   a folder of a store, as it stood at one version of its files

Processes of one machine share a copy: one downloads it and the others wait. What nobody asked for
in a week, and what killed downloads left, is deleted by the next one. The cache is $CODEPMP_CACHE,
or the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from codepmp_ray.errors import StorageError
from codepmp_ray.storage.base import Store
from codepmp_ray.storage.local import LocalStore

_UNUSED_S = 7 * 24 * 3600.0


def cache_dir() -> Path:
    """$CODEPMP_CACHE, or codepmp-ray in the user's cache folder."""
    if explicit := os.environ.get("CODEPMP_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "codepmp-ray"


def local_folder(store: Store) -> Path:
    """The files that lie directly in `store`, as a folder of this machine.

    That of a LocalStore is its own. Raises StorageError when there is nothing, or no room for it.
    """
    if isinstance(store, LocalStore):
        return store.root
    files = store.files("")
    if not files:
        raise StorageError(f"There is nothing in {store.uri}.")
    facts = [store.uri, *((name, *vars(fact).values()) for name, fact in files.items())]
    folder = _remote_copies() / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
    with _alone(folder):
        if folder.is_dir():
            os.utime(folder)
            return folder
        _tidy(folder)
        _require_room(store.uri, sum(fact.num_bytes for fact in files.values()), folder.parent)
        scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        try:
            scratch.mkdir()
            list(store.each(lambda name: store.download(name, scratch / name), files))
            os.rename(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


@contextmanager
def local_file(store: Store, name: str, sha256: str, num_bytes: int) -> Iterator[Path]:
    """The file `name` with that digest and size, on this machine while the block runs.

    To be opened in the block: a copy is deleted by `forget_file`, which leaves what is open alone.
    Raises StorageError when the bytes are others or there is no room for them.
    """
    if isinstance(store, LocalStore):
        yield store.path(name)
        return
    path = _remote_copies() / sha256
    with _alone(path):
        if not path.is_file():
            _tidy(path)
            _require_room(store.locate(name), num_bytes, path.parent)
            scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                store.download(name, scratch)
                with open(scratch, "rb") as handle:
                    found = hashlib.file_digest(handle, "sha256").hexdigest()
                if found != sha256:
                    raise StorageError(
                        f"{store.locate(name)} is damaged: its SHA-256 is {found}, and {sha256} "
                        "was written.",
                        "Delete it and run the job again: it is made anew.",
                    )
                os.rename(scratch, path)
            finally:
                scratch.unlink(missing_ok=True)
        yield path


def forget_file(sha256: str) -> None:
    """Delete this machine's copy of a file, if there is one; who has it open keeps it."""
    path = _remote_copies() / sha256
    if path.is_file():
        with _alone(path):
            path.unlink(missing_ok=True)


def _remote_copies() -> Path:
    return cache_dir() / "remote"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            yield
    except OSError as error:
        raise StorageError(
            f"Cannot write below {path.parent}: {error.strerror}.",
            "Set CODEPMP_CACHE to a folder with room, on every node.",
        ) from error


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _require_room(location: str, num_bytes: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StorageError(
            f"{location} takes {num_bytes / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB "
            "left.",
            "Set CODEPMP_CACHE to a folder with more room, on every node.",
        )


def _tidy(path: Path) -> None:
    """Delete what a killed download of `path` left, whose lock is held, and what nobody uses."""
    for left in path.parent.glob(f".{path.name}.*"):
        if left.suffix != ".lock":
            _delete(left)
    for other in path.parent.iterdir():
        if other.name.startswith(".") or not _is_unused(other):
            continue
        with suppress(Timeout), _lock(other).acquire(blocking=False):  # who holds it uses it
            if _is_unused(other):
                _delete(other)


def _is_unused(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _UNUSED_S
    except FileNotFoundError:
        return False


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
