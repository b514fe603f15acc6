"""Every setting that names rows takes the same files, and tells which it does not read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.pool_statistics import PoolStatisticsConfig
from codepmp_ray.corpus.documents import read_unit
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import input_root, list_source
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_files import load_labelled_pool
from codepmp_ray.io.rows import read_rows, read_whole
from codepmp_ray.io.shards import RowSource, plan_pieces, read_piece
from codepmp_ray.preference.sources.reading import read_source
from codepmp_ray.preference.sources.rows import Reject

ROWS = [
    {
        "id": f"q{i}",
        "problem_id": f"p{i}",
        "prompt": f"{i} + 1?",
        "candidates": ["1", "2"],
        "labels": [True, False],
        "content": f"def f{i}(x):\n    return x + {i}\n",
    }
    for i in range(5)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


FILES: dict[str, bytes] = {
    "a.jsonl": LINES,
    "a.ndjson": LINES,
    "lines.json": LINES,
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES,
    "A.JSONL": LINES,
    "a.jsonl.gz": gzip.compress(LINES[:100]) + gzip.compress(LINES[100:]),
    "a.jsonl.zst": zstd(LINES),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
    "array.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.parquet": parquet(),
    "a.pq": parquet(),
}


def training(place: str) -> list[Any]:
    items = read_source(DataSourceConfig(path=place))
    return [item if isinstance(item, Reject) else item[1]["id"] for item in items]


def whole(place: str) -> list[Any]:
    return [row["id"] for row in read_whole("a setting", place)]


def shards(place: str) -> list[Any]:
    source = RowSource("batch_scoring", place, ("id", "prompt"), (("prompt",),), 2, "plan.json")
    pieces = plan_pieces(source)
    assert [piece.stop - piece.first for piece in pieces] == [2, 2, 1]
    # In another order than the file's, as workers take them.
    found = {p.first: [row["id"] for _, row in read_piece(p, source)] for p in reversed(pieces)}
    return [name for first in sorted(found) for name in found[first]]


def pools(place: str) -> list[Any]:
    loaded = load_labelled_pool(PoolStatisticsConfig(path=place))
    return [f"q{name[1:]}" for name in loaded.questions]


def corpus(place: str) -> list[Any]:
    kind = "parquet" if place.endswith((".parquet", ".pq")) else "jsonl"
    config = CorpusConfig(
        source=SourceConfig(kind=kind, path=place, license="MIT"), files_per_task=2
    )
    root, files = list_source(config.source)
    plan = plan_corpus(config, root, files)
    # Two readers, each with the plan alone.
    documents = [
        document
        for unit in reversed(plan.units)
        for document in read_unit(config, input_root(config.source, plan.root), unit, None)
    ]
    assert [document.reason for document in documents] == [None] * 5
    return sorted(f"q{(document.data or b'?')[5:6].decode()}" for document in documents)


READERS: dict[str, Callable[[str], list[Any]]] = {
    "training": training, "evaluation": whole, "shards": shards, "pools": pools, "corpus": corpus,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_takes_every_file(tmp_path: Path, reader: str, name: str) -> None:
    file = tmp_path / "a folder" / name
    file.parent.mkdir()
    file.write_bytes(FILES[name])
    expected = [row["id"] for row in ROWS]
    places = [str(file), f"file://{file}"]
    for place in places:
        assert READERS[reader](place) == expected, place
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{reader}/{name}", FILES[name])
    try:
        assert READERS[reader](f"memory://{reader}/{name}") == expected
    finally:
        memory.rm(f"/{reader}", recursive=True)


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_folder_is_read_whole_and_the_rest_is_told(
    tmp_path: Path, is_remote: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a.jsonl", "b/c.jsonl.zst", "b/d.jsonl.gz", "e.parquet"]
    others = ["README.md", "b/table.csv"]
    hidden = [".part.jsonl", ".git/x.jsonl", "__pycache__/y.jsonl"]
    contents = dict(zip(names, (LINES, zstd(LINES), gzip.compress(LINES), parquet()), strict=True))
    contents |= dict.fromkeys([*others, *hidden], LINES)
    place = f"memory://{tmp_path.name}" if is_remote else str(tmp_path)
    for name, data in contents.items():
        if is_remote:
            fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/{name}", data)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
    assert training(place) == 4 * [row["id"] for row in ROWS]
    told = capsys.readouterr().err
    assert f"={place}: 2 of 6 files are not read: README.md, b/table.csv." in told
    source = RowSource("batch_scoring", place, ("id",), (("id",),), 100, "plan.json")
    assert {piece.name for piece in plan_pieces(source)} == set(names)
    _, files = list_source(SourceConfig(kind="jsonl", path=place))
    assert [file.name for file in files] == names[:3]
    told = capsys.readouterr().err
    assert "corpus.source.path" in told and "README.md, b/table.csv, e.parquet." in told


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"corpus"}))  # that has a kind for it
def test_a_saved_data_set_is_refused_with_what_to_do(tmp_path: Path, reader: str) -> None:
    """Its JSON files are about it; none of them holds rows."""
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"holds Arrow files.*data-.*to_parquet"):
        READERS[reader](str(tmp_path / "saved"))


def test_rows_are_numbered_over_all_files_and_damage_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"n": 0}\n\nnot json\n[1]\n')
    (tmp_path / "b.parquet").write_bytes(parquet())
    found = list(read_rows("x.path", str(tmp_path)))
    assert [number for number, _ in found] == [0, 2, 3, 4, 5, 6, 7, 8]
    assert [str(row) for _, row in found[1:3]] == [
        "not a JSON line (Expecting value: line 1 column 1 (char 0))",
        "holds list, not an object",
    ]
    with pytest.raises(InputError, match=r"^x\.path=.*row 3: not a JSON line"):
        list(read_whole("x.path", str(tmp_path)))


@pytest.mark.parametrize("whole_name", ["a.jsonl.gz", "a.jsonl.xz", "a.parquet", "array.json"])
def test_a_file_that_is_cut_off_is_an_error_with_the_setting_and_its_name(
    tmp_path: Path, whole_name: str
) -> None:
    name = f"cut-{whole_name}"
    (tmp_path / name).write_bytes(FILES[whole_name][:100])
    with pytest.raises(InputError, match=rf"^the set 'preference': path=.*{name} cannot be read"):
        training(str(tmp_path))
    source = RowSource("batch_scoring", str(tmp_path), ("id",), (("id",),), 2, "plan.json")
    with pytest.raises(InputError, match=f"None of the 1 files of batch_scoring.*{name}"):
        plan_pieces(source)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_there_is_called_by_its_own_setting(tmp_path: Path, reader: str) -> None:
    setting = {
        "training": "the set 'preference': path", "evaluation": "a setting",
        "shards": "batch_scoring.path", "pools": "pool_statistics.path",
        "corpus": "corpus.source.path",
    }[reader]  # fmt: skip
    for place in (str(tmp_path / "nope.jsonl"), "memory://nope.jsonl"):
        with pytest.raises(InputError) as caught:
            READERS[reader](place)
        assert str(caught.value).startswith(f"{setting}={place}"), caught.value
