"""File operations: all or nothing, first come first served, and errors that name the file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore, open_store
from codepmp_ray.storage.scratch import ScratchFolder


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gcsfuse, Mountpoint for S3, exFAT and SMB have none."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), source)

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match=r"a/b\.json.*has no hard links.*NFS"):
        LocalStore(tmp_path).put_exclusive("a/b.json", b"1")
    assert _files(tmp_path) == []


def test_put_replaces_and_put_exclusive_does_not(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b.json", b"1")
    store.put("a/b.json", b"2")
    assert store.put_exclusive("a/b.json", b"3") is False
    assert store.read_bytes("a/b.json") == b"2"
    assert store.put_exclusive("a/c.json", b"4") is True
    assert _files(tmp_path) == ["a/b.json", "a/c.json"]


def test_a_reader_of_the_old_file_keeps_the_old_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a.json", b"old" * 100_000)
    with open(tmp_path / "a.json", "rb") as reader:
        start = reader.read(3)
        store.put("a.json", b"new" * 100_000)
        assert start + reader.read() == b"old" * 100_000
    assert store.read_bytes("a.json") == b"new" * 100_000


def test_of_many_racing_creators_one_wins_and_its_bytes_stay(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    gate = threading.Barrier(8)
    won: list[list[int]] = [[] for _ in range(20)]

    def create(writer: int) -> None:
        for round_ in range(20):
            gate.wait()
            if store.put_exclusive(f"marker-{round_}", str(writer).encode() * 10_000):
                won[round_].append(writer)

    threads = [threading.Thread(target=create, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for round_, winners in enumerate(won):
        assert len(winners) == 1
        assert store.read_bytes(f"marker-{round_}") == str(winners[0]).encode() * 10_000
    assert len(_files(tmp_path)) == 20


@pytest.mark.parametrize("operation", ["put", "put_exclusive"])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    store = LocalStore(tmp_path)
    store.put("old.json", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"old\.json: No space left.*Free disk space"):
        getattr(store, operation)("old.json", b"new" * 1_000)
    monkeypatch.undo()
    assert store.read_bytes("old.json") == b"old"
    assert _files(tmp_path) == ["old.json"]


def test_an_interrupted_writer_shows_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put("tables/x.parquet", b"half")
    assert _files(tmp_path) == []


def test_tables_come_back_whole_or_by_column(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    table = pa.table({"id": ["a", "b"], "size": [1, 2]})
    store.put_table("t.parquet", table)
    assert store.read_table("t.parquet").equals(table)
    assert store.read_table("t.parquet", ["size"]).to_pydict() == {"size": [1, 2]}


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put("t.parquet", content)
    with pytest.raises(StorageError, match=r"t\.parquet"):
        store.read_table("t.parquet")


def test_a_table_cut_short_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_table("t.parquet", pa.table({"id": list(range(1_000))}))
    store.put("t.parquet", store.read_bytes("t.parquet")[:-100])
    with pytest.raises(StorageError, match=r"t\.parquet"):
        store.read_table("t.parquet")


def test_a_missing_file_is_named_and_a_missing_folder_is_empty(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(StorageError, match=r"none\.json"):
        store.read_bytes("none.json")
    assert store.list("nowhere") == []
    store.delete("none.json")


def test_a_run_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = LocalStore(tmp_path / "file")
    assert not store.exists("complete.json")
    with pytest.raises(StorageError, match="file"):
        store.put("manifest.json", b"{}")
    with pytest.raises(StorageError, match="file"):
        store.list("")


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("runs/x").uri == str(tmp_path / "runs/x")
    assert open_store(f"file://{tmp_path}/y z").uri == str(tmp_path / "y z")
    assert open_store(tmp_path).sub("a").sub("b").uri == str(tmp_path / "a/b")


_HOLDS = """
import sys, time
from codepmp_ray.storage.scratch import ScratchFolder
folder = ScratchFolder()
(folder.path / "half a file").write_bytes(b"x" * 1000)
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_empty_and_goes(base: Path) -> None:
    with ScratchFolder() as folder:
        assert folder.parent == base and not list(folder.iterdir())
        (folder / "part").mkdir()
    assert not list(base.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_folder(base: Path) -> None:
    holders = [
        subprocess.Popen([sys.executable, "-c", _HOLDS], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, alive = (Path(holder.stdout.readline().strip()) for holder in holders)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert killed.is_dir()
        with ScratchFolder():
            assert not killed.exists()
            assert (alive / "half a file").is_file()
    finally:
        holders[1].kill()
        holders[1].wait()
    with ScratchFolder():
        pass
    assert not list(base.iterdir())
