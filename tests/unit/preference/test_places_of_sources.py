"""A set is read from wherever its fingerprint is taken: paths, file:// and object stores."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import CompressedOutputStream

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import _listing_digest
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.preference.sources.reading import read_source
from codepmp_ray.preference.sources.rows import Reject
from codepmp_ray.runs import stage_fingerprints
from codepmp_ray.storage import open_store
from codepmp_ray.storage.remote_files import CheckedFile

ROWS = [{"prompt": f"p{i} é", "chosen": f"c{i}" * 40, "rejected": f"r{i}"} for i in range(3000)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=500)
    return sink.getvalue()


FILES = {
    "a.jsonl": lines(ROWS),
    "a.json": json.dumps(ROWS).encode(),
    "a.txt": lines(ROWS),
    "a.jsonl.gz": gzip.compress(lines(ROWS)),
    "a.jsonl.zst": zstd(lines(ROWS)),
    "a.parquet": parquet(ROWS),
}


@pytest.fixture(params=["path", "file://", "s3://"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_bucket: str) -> str:
    """A folder that is written as a path or as a URI."""
    folder = tmp_path / "a set"
    roots = {"path": str(folder), "file://": f"file://{folder}", "s3://": f"{s3_bucket}/a set"}
    return roots[request.param]


def read(path: str) -> list[Any]:
    return list(read_source(DataSourceConfig(path=path)))


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_file_is_read_at_every_place(place: str, name: str) -> None:
    open_store(place).put(name, FILES[name])
    assert read(f"{place}/{name}") == list(enumerate(ROWS))


def test_a_folder_is_read_in_the_order_of_names(place: str) -> None:
    store = open_store(place)
    store.put("b/2.parquet", FILES["a.parquet"])
    store.put("a.jsonl.gz", gzip.compress(lines(ROWS[:2])))
    store.put("c.jsonl", b"{broken\n" + lines(ROWS[5:6]))
    store.put("notes.txt", b"no rows")
    *rows, broken, last = read(place)
    assert rows == list(enumerate([*ROWS[:2], *ROWS]))
    assert isinstance(broken, Reject) and broken.index == len(rows)
    assert last == (len(rows) + 1, ROWS[5])


def test_what_is_missing_is_refused_with_the_place(place: str) -> None:
    with pytest.raises(InputError, match=r"path=.*/none\.jsonl(: nothing is| does not)"):
        read(f"{place}/none.jsonl")
    open_store(place).put("notes.md", b"")
    with pytest.raises(InputError, match=r"holds no file of JSON lines .*it holds notes\.md"):
        read(place)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_store_that_fails_is_no_damaged_set(
    s3_bucket: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: CheckedFile, size: int = -1, /) -> bytes:
        raise StorageError(f"Cannot read {self.name}: it does not answer.")

    open_store(s3_bucket).put(name, FILES[name])
    monkeypatch.setattr(CheckedFile, "read", fail)
    with pytest.raises(StorageError, match="does not answer"):
        read(f"{s3_bucket}/{name}")


def test_the_fingerprint_asks_for_what_is_read(place: str) -> None:
    store = open_store(place)
    store.put("a.jsonl", FILES["a.jsonl"])
    recipe = Recipe.model_validate({"finetuning": {"data": [{"path": f"{place}/a.jsonl"}]}})
    before = stage_fingerprints(recipe)["finetuning"]
    store.put("a.jsonl", lines(ROWS[:7]))
    _listing_digest.cache_clear()
    assert stage_fingerprints(recipe)["finetuning"] != before
    assert len(read(f"{place}/a.jsonl")) == 7
