"""Object stores: faults of server and network, what is refused, and what is asked of the server."""

from __future__ import annotations

import json
import multiprocessing
import os
from importlib import metadata

import pyarrow as pa
import pytest

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import objects, open_store
from codepmp_ray.storage.backends import BACKENDS
from tests.s3_server import S3Server

NUM_WRITERS, NUM_SHARDS = 3, 15


def _write_all(uri: str, writer: int, gate: object, results: object) -> None:
    ledger = ShardLedger(open_store(uri))
    won = []
    for shard_id in range(NUM_SHARDS):
        gate.wait()  # type: ignore[attr-defined]
        if ledger.commit(shard_id, 1, {"rows": pa.table({"writer": [writer]})}):
            won.append(shard_id)
    results.put((writer, won))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.slow
def test_of_racing_processes_one_commits_each_shard(s3_bucket: str) -> None:
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(NUM_WRITERS), context.Queue()
    processes = [
        context.Process(target=_write_all, args=(f"{s3_bucket}/run", writer, gate, results))
        for writer in range(NUM_WRITERS)
    ]
    for process in processes:
        process.start()
    winner_of = {
        shard: writer for writer, won in (results.get() for _ in processes) for shard in won
    }
    for process in processes:
        process.join()
    store = open_store(f"{s3_bucket}/run")
    assert ShardLedger(store).read("rows")["writer"].to_pylist() == [
        winner_of[shard_id] for shard_id in range(NUM_SHARDS)
    ]
    assert len(store.list("rows/00000")) == NUM_SHARDS


def test_a_lost_reply_is_not_taken_for_another_writer(s3_bucket: str, s3_server: S3Server) -> None:
    ledger = ShardLedger(open_store(f"{s3_bucket}/run"))
    s3_server.fail("lost", part="_commits")
    assert ledger.commit(0, 1, {"rows": pa.table({"x": [1]})})
    assert ledger.read("rows")["x"].to_pylist() == [1]


def test_a_conflict_is_tried_again(
    s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(objects.time, "sleep", waits.append)
    store = open_store(f"{s3_bucket}/run")
    s3_server.fail("conflict", times=2)
    assert store.put_exclusive("x", b"1")
    assert waits == [0.1, 0.2]
    s3_server.fail("conflict", times=1_000)
    with pytest.raises(StorageError, match="conflict again and again"):
        store.put_exclusive("y", b"1")
    s3_server.fail(None)


def test_a_server_that_ignores_the_condition_is_refused(
    s3_bucket: str, s3_server: S3Server
) -> None:
    store = open_store(f"{s3_bucket}/run")
    s3_server.fail("unconditional", times=2)
    with pytest.raises(StorageError, match="creates an object that is there already"):
        store.require_ready()
    store.require_ready()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("denied", "Check the credentials"), ("full", "XMinioStorageFull.*resumes where it stopped")],
)
def test_what_the_server_refuses_is_one_message(
    s3_bucket: str, s3_server: S3Server, fault: str, message: str
) -> None:
    store = open_store(f"{s3_bucket}/run")
    s3_server.fail(fault, method="*", times=1_000)
    try:
        with pytest.raises(StorageError, match=rf"Cannot write s3://.*/run/x: .*{message}"):
            store.put("x", b"")
        if fault == "denied":
            with pytest.raises(StorageError, match=r"Cannot look up.*Check the credentials"):
                store.exists("complete.json")
            with pytest.raises(StorageError, match=r"Cannot list.*Check the credentials"):
                store.list("_commits")
    finally:
        s3_server.fail(None)
    store.put("x", b"")


def test_a_missing_bucket_is_named(s3_server: S3Server) -> None:
    store = open_store("s3://no-such-bucket-here/run")
    for operation in (lambda: store.put("x", b""), lambda: store.list("")):
        with pytest.raises(StorageError, match=r"no-such-bucket-here.*Create the bucket"):
            operation()


def test_a_server_that_is_down_is_named(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No server listens on port 1. A client of its own: the other ones are kept and used again.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    _forget_clients()
    store = open_store("s3://bucket/run")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1.*Check that the store can be reached"):
        store.put("x", b"")
    _forget_clients()


def _forget_clients() -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def test_a_lock_whose_holder_died_says_what_to_delete(s3_bucket: str) -> None:
    store = open_store(f"{s3_bucket}/run")
    record = {"host": "node-7", "pid": 4711, "time": "2026-01-01T00:00:00Z"}
    store.put("rewrite.lock", json.dumps(record).encode())
    expected = (
        r"Process 4711 on node-7, since 2026-.* is changing .*delete s3://.*/run/rewrite\.lock"
    )
    with pytest.raises(StorageError, match=expected), store.lock("rewrite.lock"):
        raise AssertionError
    store.delete("rewrite.lock")
    with store.lock("rewrite.lock"):
        assert json.loads(store.read_bytes("rewrite.lock"))["pid"] == os.getpid()


def test_columns_and_footers_are_read_in_part(s3_bucket: str, s3_server: S3Server) -> None:
    store = open_store(f"{s3_bucket}/run")
    table = pa.table({"small": [1, 2], "large": [os.urandom(4_000_000), os.urandom(4_000_000)]})
    store.put_table("t.parquet", table.replace_schema_metadata({"k": "v"}))
    s3_server.traffic()
    assert store.read_table_metadata("t.parquet")[b"k"] == b"v"
    assert store.read_table("t.parquet", ["small"])["small"].to_pylist() == [1, 2]
    assert 0 < s3_server.traffic()["bytes"] < 400_000
    assert store.read_table("t.parquet").num_columns == 2
    assert s3_server.traffic()["bytes"] > 8_000_000


@pytest.mark.parametrize("uri", ["memory://run", "https://host/run", "hf://datasets/a/b"])
def test_stores_that_cannot_create_exclusively_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match=r"not known to work.*Use a local or shared"):
        open_store(uri)


@pytest.mark.parametrize("scheme", BACKENDS)
def test_a_client_that_is_missing_or_too_old_is_refused(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(StorageError, match=r"needs the package.*Install codepmp-ray\["):
        open_store(f"{scheme}://bucket/run")
    monkeypatch.setattr(metadata, "version", lambda package: "2024.6.1")
    with pytest.raises(StorageError, match=r"2024\.6\.1 cannot create files exclusively"):
        open_store(f"{scheme}://bucket/run")


def test_a_uri_needs_a_bucket_and_no_pattern(s3_server: S3Server) -> None:
    with pytest.raises(StorageError, match="names no bucket"):
        open_store("s3://")
    with pytest.raises(StorageError, match="must not have any of"):
        open_store("s3://bucket/run*")
