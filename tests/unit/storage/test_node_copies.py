"""Copies of remote files on one machine: made once, of one version, with room, and forgotten."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from filelock import FileLock

from codepmp_ray.errors import ModelError, StorageError
from codepmp_ray.hub_models import is_hub_id
from codepmp_ray.modeling.sources import require_weights, resolve_model
from codepmp_ray.storage import LocalStore, node_copies, open_store
from codepmp_ray.storage.node_copies import forget_file, local_file, local_folder
from codepmp_ray.storage.objects import ObjectStore, _version


class CountingStore(ObjectStore):
    """In fsspec's memory; says what was downloaded."""

    def __init__(self) -> None:
        prefix = f"/run-{uuid.uuid4().hex}"
        super().__init__(fsspec.filesystem("memory"), prefix, f"memory:/{prefix}")
        self.downloaded: list[str] = []

    def download(self, name: str, path: Path) -> None:
        self.downloaded.append(name)
        time.sleep(0.05)
        super().download(name, path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path / "a cache"))
    return tmp_path / "a cache" / "remote"


@pytest.fixture
def store(cache: Path) -> CountingStore:
    made = CountingStore()
    for name, content in (("config.json", b"{}"), ("weights", b"123")):
        made.put(name, content)
    return made


def test_a_local_folder_is_its_own_copy(tmp_path: Path, cache: Path) -> None:
    assert local_folder(LocalStore(tmp_path / "a run")) == tmp_path / "a run"
    assert not cache.exists()


def test_a_version_is_downloaded_once_however_many_ask(store: CountingStore) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(local_folder(store))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and sorted(store.downloaded) == ["config.json", "weights"]
    assert (found[0] / "weights").read_bytes() == b"123"
    store.put("weights", b"456")
    again = local_folder(store)
    assert again != found[0] and (again / "weights").read_bytes() == b"456"


def test_a_download_that_fails_leaves_nothing_and_is_made_again(
    store: CountingStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str, path: Path) -> None:
        path.write_bytes(b"half")
        raise StorageError("The store does not answer.")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="does not answer"):
        patch.setattr(store, "download", fails)
        local_folder(store)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert (local_folder(store) / "weights").read_bytes() == b"123"


def test_no_room_is_said_before_anything_is_fetched(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_copies.shutil, "disk_usage", lambda path: SimpleNamespace(free=4))
    with pytest.raises(StorageError, match=r"takes 0\.0 GB.*CODEPMP_CACHE"):
        local_folder(store)
    assert store.downloaded == []


def test_what_nobody_asked_for_in_a_week_goes(store: CountingStore, cache: Path) -> None:
    old = local_folder(store)
    os.utime(old, (0, 0))
    other = CountingStore()
    other.put("config.json", b"{}")
    with FileLock(cache / f".{old.name}.lock"):  # somebody is about to use it
        assert local_folder(other).is_dir() and old.exists()
    other.put("config.json", b"{ }")
    assert local_folder(other).is_dir() and not old.exists()


def test_what_a_killed_download_left_goes_before_the_next(
    store: CountingStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local_folder(store)
    left = cache / f".{folder.name}.dead"
    folder.rename(left)
    found = []
    monkeypatch.setattr(node_copies, "_require_room", lambda *_: found.append(left.exists()))
    assert local_folder(store) == folder and found == [False]


def test_a_file_stays_with_who_has_it_open(store: CountingStore, cache: Path) -> None:
    digest = hashlib.sha256(b"123").hexdigest()
    with local_file(store, "weights", digest, 3) as path, open(path, "rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    with local_file(store, "weights", digest, 3):
        pass
    assert store.downloaded == ["weights"]
    forget_file(digest)
    forget_file(digest)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert mapped[:] == b"123"


def test_a_damaged_file_is_refused(store: CountingStore, cache: Path) -> None:
    digest = hashlib.sha256(b"124").hexdigest()
    with (
        pytest.raises(StorageError, match="weights is damaged"),
        local_file(store, "weights", digest, 3),
    ):
        pass
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_models_are_found_by_uri(s3_bucket: str, cache: Path) -> None:
    uri = f"{s3_bucket}/a run/model"
    assert not is_hub_id(uri)
    for function in (require_weights, resolve_model):
        with pytest.raises(ModelError, match=r"There is no model at s3://.*no config\.json"):
            function(uri)
    open_store(uri).put("config.json", b"{}")
    require_weights(uri)
    assert not cache.exists()  # asked, not fetched
    assert (Path(resolve_model(uri)) / "config.json").read_bytes() == b"{}"


def test_a_full_disk_of_this_machine_is_not_the_stores_fault(
    store: CountingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(key: str, path: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(store._fs, "get_file", full)
    with pytest.raises(StorageError, match=r"Cannot write .*No space left.*CODEPMP_CACHE"):
        local_folder(store)


def test_reading_an_object_does_not_change_its_version(store: CountingStore) -> None:
    entry = {"name": "a", "size": 3, "etag": "1", "last_accessed_on": "now"}
    assert _version(entry) == _version({**entry, "last_accessed_on": "later"})
    assert _version(entry) != _version({**entry, "etag": "2"})
    plain = {"name": "a", "size": 3, "mtime": 1}
    assert _version(plain) != _version({**plain, "mtime": 2})
