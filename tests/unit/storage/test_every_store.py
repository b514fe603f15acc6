"""What holds for every store: local folders, fsspec's memory, a server that speaks S3."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.shard_rewrite import replace_shard, sole_writer
from codepmp_ray.storage import LocalStore, Store, open_store
from codepmp_ray.storage.objects import ObjectStore


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "a run")
    if request.param == "memory":
        prefix = f"/run-{uuid.uuid4().hex}"
        return ObjectStore(fsspec.filesystem("memory"), prefix, f"memory:/{prefix}")
    return open_store(f"{request.getfixturevalue('s3_bucket')}/runs/a run/")


def test_files_come_and_go(store: Store) -> None:
    assert not store.exists("a/b.json")
    store.put("a/b.json", b"1")
    store.put("a/b.json", b"2")
    assert store.exists("a/b.json")
    assert store.read_bytes("a/b.json") == b"2"
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert not store.exists("a/b.json")
    with pytest.raises(StorageError, match=r"a/b\.json: no such file|No such file"):
        store.read_bytes("a/b.json")


def test_listing_names_files_and_folders_and_hides_scratch(store: Store) -> None:
    assert store.list("") == store.list("nowhere") == []
    for name in ("t/00001/x", "t/00000/y", "t/z", "t/.probe", "u"):
        store.put(name, b"")
    assert store.list("t") == ["00000", "00001", "z"]
    assert store.list("t/00001") == ["x"]
    assert store.list("") == ["t", "u"]
    store.put("t/a", b"")
    assert store.list("t") == ["00000", "00001", "a", "z"]  # nothing was remembered


def test_local_files_are_taken_and_fetched(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * 300
    with store.scratch_folder() as folder:
        (folder / "made").write_bytes(content)
        store.take("t/00000/taken", folder / "made")
        store.put("t/00000/taken.json", b"1")
        (folder / "made").write_bytes(b"2")
        store.take("t/00000/taken.json", folder / "made")
        assert not list(folder.iterdir())
    assert not folder.exists()
    assert store.list("") == ["t"]
    assert store.read_bytes("t/00000/taken.json") == b"2"
    store.download("t/00000/taken", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    with pytest.raises(StorageError, match=r"t/nothing"):
        store.download("t/nothing", tmp_path / "nothing")


def test_files_have_sizes_and_versions(store: Store) -> None:
    assert store.files("t") == {}
    store.put("t/a", b"123")
    store.put("t/b/c", b"")
    before = store.files("t")
    assert list(before) == ["a"] and before["a"].num_bytes == 3
    assert store.files("t") == before
    store.put("t/a", b"124")
    assert store.files("t")["a"].version != before["a"].version


def test_arrow_writes_into_the_same_folder(store: Store) -> None:
    path, filesystem = store.sub("t").arrow()
    filesystem.create_dir(path)
    with filesystem.open_output_stream(f"{path}/a") as stream:
        stream.write(b"1")
    assert store.read_bytes("t/a") == b"1"


@pytest.mark.slow
@pytest.mark.slow
def test_a_folder_of_many_files_is_listed_whole(store: Store) -> None:
    names = [f"{i:08d}.json" for i in range(1_050)]  # S3 lists a thousand at a time
    list(store.each(lambda name: store.put(f"many/{name}", b"{}"), names))
    assert store.list("many") == names


def test_exclusive_create(store: Store) -> None:
    assert store.put_exclusive("a.json", b"first") is True
    assert store.put_exclusive("a.json", b"other") is False
    assert store.read_bytes("a.json") == b"first"
    store.require_ready()
    assert store.list("") == ["a.json"]


def test_of_many_racing_creators_one_wins(store: Store) -> None:
    if "memory:" in store.uri:
        pytest.skip("fsspec's memory looks first and writes then")
    gate, won = threading.Barrier(6), [[] for _ in range(10)]

    def create(writer: int) -> None:
        for round_ in range(10):
            gate.wait()
            if store.put_exclusive(f"marker-{round_}", str(writer).encode()):
                won[round_].append(writer)

    threads = [threading.Thread(target=create, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for round_, winners in enumerate(won):
        assert len(winners) == 1
        assert store.read_bytes(f"marker-{round_}") == str(winners[0]).encode()


def test_tables_come_back_whole_by_column_and_by_footer(store: Store) -> None:
    table = pa.table({"id": ["a", "b"], "size": [1, 2]}).replace_schema_metadata({"k": "v"})
    store.put_table("t.parquet", table)
    assert store.read_table("t.parquet").equals(table)
    assert store.read_table("t.parquet", ["size"]).to_pydict() == {"size": [1, 2]}
    assert store.read_table_metadata("t.parquet")[b"k"] == b"v"


@pytest.mark.parametrize("columns", [None, ["id"]])
def test_damaged_and_missing_tables_are_named(store: Store, columns: list[str] | None) -> None:
    store.put("t.parquet", b"PAR1" + b"\0" * 100 + b"PAR1")
    with pytest.raises(StorageError, match=r"t\.parquet is not a readable Parquet"):
        store.read_table("t.parquet", columns)
    with pytest.raises(StorageError, match=r"Cannot read .*none\.parquet"):
        store.read_table("none.parquet", columns)


def test_sub_stores_and_their_removal(store: Store) -> None:
    inner = store.sub("replays").sub("0000")
    inner.put("pairs/x", b"1")
    assert store.read_bytes("replays/0000/pairs/x") == b"1"
    assert inner.uri == f"{store.uri}/replays/0000"
    store.put("other", b"")
    inner.delete_tree("nothing here")
    inner.delete_tree("")
    assert store.list("") in (["other"], ["other", "replays"])  # a file system keeps the folder
    assert store.list("replays") == []


def test_one_holder_of_a_lock_at_a_time(store: Store) -> None:
    ledger = ShardLedger(store)
    store.put("x", b"")
    with (
        sole_writer(ledger),
        pytest.raises(StorageError, match="is changing"),
        sole_writer(ledger),
    ):
        raise AssertionError
    with sole_writer(ledger):
        pass


def test_the_ledger_stands_on_it(store: Store) -> None:
    ledger = ShardLedger(store)
    rows = pa.table({"id": ["a", "b"]})
    assert ledger.commit(0, 2, {"pairs": rows, "rejected": rows.slice(2)}, {"n": 2})
    assert not ledger.commit(0, 2, {"pairs": rows.slice(1), "rejected": rows.slice(1)})
    assert ledger.commit(1_500, 1, {"pairs": rows.slice(1), "rejected": rows.slice(2)})
    assert ledger.missing_ids(3) == [1, 2]
    assert ledger.committed_ids() == {0, 1_500}
    assert ledger.read("pairs")["id"].to_pylist() == ["a", "b", "b"]
    assert ledger.totals().num_rows["pairs"] == 3
    # The loser took its files with it.
    assert len(store.list("pairs/00000")) == len(store.list("rejected/00000")) == 1
    store.put("pairs/00000/00000000.lost.parquet", b"of a writer that died")
    assert ledger.sweep(["pairs", "rejected"]) == 1
    with sole_writer(ledger):
        commit = next(ledger.commits())
        rejected = table_from_rows([{"row_id": "a", "reason": "purged"}], REJECTED)
        replace_shard(ledger, commit, {"pairs": rows.slice(1), "rejected": rejected})
    assert ledger.read("pairs")["id"].to_pylist() == ["b", "b"]
    assert len(store.list("pairs/00000")) == 1
