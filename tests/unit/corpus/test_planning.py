"""Work units: complete, deterministic, independent of how they are cut."""

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus import row_files
from codepmp_ray.corpus.documents import read_unit
from codepmp_ray.corpus.planning import (
    CorpusPlan,
    load_plan,
    plan_corpus,
    recorded_digest,
    save_plan,
)
from codepmp_ray.corpus.sources import list_files, listing_digest, source_root
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.storage import LocalStore


@pytest.fixture(params=["folder", "parquet", "jsonl"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> SourceConfig:
    """23 documents, in two files where they are rows."""
    monkeypatch.setattr(row_files, "_MIN_PARQUET_PIECE_ROWS", 1)
    root = tmp_path / "with space"
    root.mkdir()
    rows = [{"content": f"x = {i}\n", "path": f"{i:02d}.py"} for i in range(23)]
    if request.param == "folder":
        for row in rows:
            (root / row["path"]).write_text(row["content"])
    for name, part in (("a", rows[:17]), ("b", rows[17:])):
        if request.param == "parquet":
            pq.write_table(pa.Table.from_pylist(part), root / f"{name}.parquet", row_group_size=5)
        elif request.param == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in part)
            (root / f"{name}.jsonl").write_text(text)
    return SourceConfig(kind=request.param, path=str(root), license="MIT")


def make_plan(corpus: CorpusConfig) -> CorpusPlan:
    return plan_corpus(corpus, source_root(corpus.source), list_files(corpus.source))


def read_all(corpus: CorpusConfig) -> list[bytes | None]:
    plan = make_plan(corpus)
    return [
        document.data
        for unit in plan.units
        for document in read_unit(corpus, source_root(corpus.source), unit, plan.threshold)
    ]


@pytest.mark.parametrize("files_per_task", [1, 4, 64])
def test_every_document_is_read_once_in_order(source: SourceConfig, files_per_task: int) -> None:
    corpus = CorpusConfig(source=source, files_per_task=files_per_task)
    plan = make_plan(corpus)
    assert read_all(corpus) == [f"x = {i}\n".encode() for i in range(23)]
    assert plan.num_found == plan.num_taken == 23
    assert [unit.unit_id for unit in plan.units] == list(range(len(plan.units)))
    assert sum(unit.num_documents for unit in plan.units) == 23
    if files_per_task == 1:
        assert len(plan.units) == 23


def test_the_sample_depends_on_the_seed_alone(source: SourceConfig) -> None:
    def sample(seed: int, files_per_task: int) -> list[bytes | None]:
        return read_all(
            CorpusConfig(
                source=source, max_files=7, sample_seed=seed, files_per_task=files_per_task
            )
        )

    first = sample(0, 3)
    assert len(first) == len(set(first)) == 7
    assert sample(0, 64) == first
    assert sample(1, 3) != first
    assert len(read_all(CorpusConfig(source=source, max_files=100))) == 23


def test_a_plan_survives_storage_and_the_first_one_stays(
    source: SourceConfig, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "stage")
    assert recorded_digest(store) is None
    first = make_plan(CorpusConfig(source=source, files_per_task=4, max_files=20))
    save_plan(store, first)
    save_plan(store, make_plan(CorpusConfig(source=source, files_per_task=9)))
    assert load_plan(store) == first
    assert recorded_digest(store) == listing_digest(list_files(source))
    assert len(store.list("plan")) == 1
    store.put("plan.json", b"{")
    with pytest.raises(StorageError, match="is not a plan"):
        load_plan(store)


def test_file_names_of_any_bytes_survive_storage(tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    with open(bytes(root) + b"/\xff\n.py", "wb") as handle:
        handle.write(b"x = 1\n")
    corpus = CorpusConfig(source=SourceConfig(kind="folder", path=str(root), license="MIT"))
    store = LocalStore(tmp_path / "stage")
    save_plan(store, make_plan(corpus))
    (unit,) = load_plan(store).units
    (document,) = read_unit(corpus, root, unit, None)
    assert document.data == b"x = 1\n"


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_source_without_rows_is_refused(
    tmp_path: Path, kind: Literal["parquet", "jsonl"]
) -> None:
    if kind == "parquet":
        pq.write_table(pa.table({"content": pa.array([], pa.string())}), tmp_path / "a.parquet")
    else:
        (tmp_path / "a.jsonl").touch()
    corpus = CorpusConfig(source=SourceConfig(kind=kind, path=str(tmp_path)))
    with pytest.raises(InputError, match="hold no rows"):
        make_plan(corpus)


def test_a_source_of_which_no_file_can_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 is not enough")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    corpus = CorpusConfig(source=SourceConfig(kind="parquet", path=str(tmp_path)))
    with pytest.raises(InputError, match=r"none of its 2 files can be read; a\.parquet"):
        make_plan(corpus)
