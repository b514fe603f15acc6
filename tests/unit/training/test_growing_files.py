"""Files that grow: on a disk at once, in an object store now and then and when asked."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from codepmp_ray.storage import LocalStore, Store
from codepmp_ray.storage.objects import ObjectStore
from codepmp_ray.training import growing_files
from codepmp_ray.training.growing_files import GrowingFile, GrowingFolder


@pytest.fixture
def remote() -> Store:
    prefix = f"/run-{uuid.uuid4().hex}"
    return ObjectStore(fsspec.filesystem("memory"), prefix, f"memory:/{prefix}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(growing_files.time, "monotonic", lambda: now[0])
    return now


def test_on_a_disk_a_line_is_there_at_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    file = GrowingFile(store, "a", b"1\n")
    file.append(b"2\n")
    assert store.read_bytes("a") == b"1\n2\n"
    file.flush()
    folder = GrowingFolder(store, "b")
    assert folder.path == tmp_path / "b"


def test_an_object_is_put_when_it_is_time_or_asked_for(remote: Store, clock: list[float]) -> None:
    file = GrowingFile(remote, "a", b"1")
    file.append(b"2")
    assert remote.read_bytes("a") == b"1"
    file.flush()
    assert remote.read_bytes("a") == b"12"
    file.append(b"3")
    assert remote.read_bytes("a") == b"12"
    clock[0] += remote.poll_s
    file.append(b"4")
    assert remote.read_bytes("a") == b"1234"


def test_what_takes_long_is_put_seldom(
    remote: Store, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, puts = remote.put, []

    def slow(name: str, data: bytes) -> None:
        clock[0] += 2
        puts.append(clock[0])
        plain(name, data)

    file = GrowingFile(remote, "a", b"")
    monkeypatch.setattr(remote, "put", slow)
    for _ in range(400):
        clock[0] += 1
        file.append(b"x")
    assert 2 * len(puts) <= 0.06 * (clock[0] - 100) and len(puts) >= 8


def test_a_folder_is_put_whole_and_its_scratch_goes(remote: Store, clock: list[float]) -> None:
    folder = GrowingFolder(remote, "events")
    (folder.path / "a").write_bytes(b"1")
    folder.show()
    assert remote.list("events") == []
    clock[0] += remote.poll_s
    folder.show()
    assert remote.read_bytes("events/a") == b"1"
    (folder.path / "b").write_bytes(b"2")
    folder.close()
    assert remote.list("events") == ["a", "b"] and not folder.path.exists()
