"""A column inside another one is named `column.field`, in every format and by every setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.config.corpus import CorpusConfig, EvaluationSetConfig, SourceConfig
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.corpus.decontamination import _read_set
from codepmp_ray.corpus.documents import read_unit
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import input_root, list_source
from codepmp_ray.errors import InputError
from codepmp_ray.io.nested import nested_batch, nested_row, nested_schema
from codepmp_ray.io.shards import RowSource, plan_pieces, read_piece
from codepmp_ray.preference.sources.columns import ColumnUse
from codepmp_ray.preference.sources.reading import read_source

ROWS: list[dict[str, Any]] = [
    {
        "file": {
            "text": f"def f{i}(x):\n    return x + {i}\n",
            "at": {"path": f"src/f{i}.py", "license": "MIT" if i else "GPL-3.0-only"},
        },
        "talk": {"question": f"{i} + 1?", "best": "2", "worst": "3"},
        "plain.name": f"dotted {i}",
    }
    for i in range(4)
]


def saved(kind: str, folder: Path) -> str:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=3)
    else:  # only a corpus reads it
        datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return str(path)


@pytest.fixture(params=["jsonl", "parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return saved(request.param, tmp_path)


def documents(kind: str, path: str, **columns: str) -> list[Any]:
    names = {
        "content_column": "file.text",
        "path_column": "file.at.path",
        "license_column": "file.at.license",
    }
    source = SourceConfig(kind=kind, path=path, **(names | columns))  # type: ignore[arg-type]
    config = CorpusConfig(source=source, files_per_task=2)
    root, files = list_source(config.source)
    plan = plan_corpus(config, root, files)
    return [
        document
        for unit in plan.units
        for document in read_unit(config, input_root(config.source, plan.root), unit, None)
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "huggingface"])
def test_code_path_and_licence_of_a_corpus(kind: str, tmp_path: Path) -> None:
    found = documents(kind, saved(kind, tmp_path))
    assert [d.data.decode() for d in found] == [row["file"]["text"] for row in ROWS]
    assert [d.path for d in found] == [row["file"]["at"]["path"] for row in ROWS]
    assert [d.licenses for d in found] == [("GPL-3.0-only",), *[("MIT",)] * 3]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "huggingface"])
def test_a_field_that_is_not_there_is_named(kind: str, tmp_path: Path) -> None:
    path = saved(kind, tmp_path)
    if kind == "jsonl":  # each line is looked at
        reasons = [(d.reason, d.detail) for d in documents(kind, path, content_column="file.code")]
        assert all("no text in 'file.code'" in detail for _, detail in reasons), reasons
        return
    with pytest.raises(InputError, match=r"no column 'file\.code'"):
        documents(kind, path, content_column="file.code")


def test_rows_that_are_scored(path: str) -> None:
    names = ("talk.question", "talk.best", "plain.name", "talk.none")
    source = RowSource("batch_scoring", path, names, (("talk.question",),), 3, "plan.json")
    rows = [row for piece in plan_pieces(source) for _, row in read_piece(piece, source)]
    assert [row["talk.question"] for row in rows] == ["0 + 1?", "1 + 1?", "2 + 1?", "3 + 1?"]
    assert {row["talk.best"] for row in rows} == {"2"}
    assert [row["plain.name"] for row in rows] == [row["plain.name"] for row in ROWS]
    assert all(row.get("talk.none") is None for row in rows)


def test_pairs_of_a_training(path: str) -> None:
    columns = {"prompt": "talk.question", "chosen": "talk.best", "rejected": "talk.worst"}
    source = DataSourceConfig(path=path, columns=columns)
    use = ColumnUse(source, ({"chosen", "rejected"},))
    rows = [row for _, row in use.rows(read_source(source))]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [
        (f"{i} + 1?", "2", "3") for i in range(4)
    ]
    assert set(use.unused) == {"file", "plain.name"}
    wrong = DataSourceConfig(path=path, columns=columns | {"prompt": "talk.query"})
    with pytest.raises(InputError, match=r"no column 'talk\.query'"):
        list(ColumnUse(wrong, ({"chosen", "rejected"},)).rows(read_source(wrong)))


def test_texts_of_an_evaluation_set(path: str) -> None:
    config = EvaluationSetConfig(name="own", path=path, columns=("talk.question", "talk.best"))
    assert [text for text, _ in _read_set(config)] == [f"{i} + 1?\n2" for i in range(4)]


def test_columns_come_before_fields_and_lists_are_not_gone_into() -> None:
    row = {"a": {"b": 1, "c": None, "d": [{"e": 2}]}, "a.b": 3}
    assert nested_row(row, ["a.b", "a.c", "a.d.e", "x.y", "a"]) == {**row, "a.c": None}
    batch = pa.RecordBatch.from_pylist([row, {"a": None, "a.b": 4}])
    found = nested_batch(batch, ["a.b", "a.c", "a.d.e", "x.y", "a"])
    assert found.schema.names == ["a", "a.b", "a.c"]
    assert found.column("a.b").to_pylist() == [3, 4]
    assert found.column("a.c").to_pylist() == [None, None]
    assert nested_schema(batch.schema, ["a.c", "a.d.e"]).names == ["a", "a.b", "a.c"]
