"""Work units: complete, deterministic, independent of how they are cut."""

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus import planning, row_files
from codepmp_ray.corpus.documents import read_unit
from codepmp_ray.corpus.planning import (
    CorpusPlan,
    in_runs,
    load_plan,
    plan_corpus,
    recorded_digest,
    save_plan,
)
from codepmp_ray.corpus.sources import list_files, listing_digest, source_root
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.io import json_lines
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


def test_a_row_group_is_read_once_and_from_its_middle_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "_MIN_PARQUET_PIECE_ROWS", 1)
    rows = [{"content": f"x = {i}\n", "path": f"{i:03d}.py"} for i in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = SourceConfig(kind="parquet", path=str(tmp_path), license="MIT")
    corpus = CorpusConfig(source=source, files_per_task=10)
    units, opened = make_plan(corpus).units, []
    original = row_files.iter_row_group
    monkeypatch.setattr(row_files, "iter_row_group", lambda *a: opened.append(a) or original(*a))

    def read(numbers: list[int]) -> list[str]:
        return [d.path for n in numbers for d in read_unit(corpus, tmp_path, units[n], None)]

    assert len(units) == 30
    assert read(list(range(30))) == [row["path"] for row in rows] and len(opened) == 1
    opened.clear()
    assert read([3, 7, 8]) == [f"{i:03d}.py" for i in [*range(30, 40), *range(70, 90)]]
    assert len(opened) == 1
    assert read([2]) == [f"{i:03d}.py" for i in range(20, 30)] and len(opened) == 2


def test_runs_hold_the_units_of_one_row_group(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(row_files, "_MIN_PARQUET_PIECE_ROWS", 1)
    table = pa.table({"content": ["x = 1\n"] * 100})
    for name in ("a", "b"):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=50)
    source = SourceConfig(kind="parquet", path=str(tmp_path), license="MIT")
    corpus = CorpusConfig(source=source, files_per_task=10)
    units = make_plan(corpus).units
    assert [len(run) for run in in_runs(corpus, units, 4)] == [5] * 4
    assert [len(run) for run in in_runs(corpus, units, 8)] == [3, 2] * 4  # one for every processor
    for at_once in (1, 3, 50):
        runs = in_runs(corpus, units, at_once)
        assert [unit for run in runs for unit in run] == list(units)
        assert {len({unit.spans[0].file for unit in run}) for run in runs} == {1}
    folder = corpus.model_copy(update={"source": SourceConfig(kind="folder", path=str(tmp_path))})
    assert {len(run) for run in in_runs(folder, units, 1)} == {1}


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"x" * 40])
@pytest.mark.parametrize("part_bytes", [1, 3, 7, 16, 1_000])
def test_lines_are_counted_in_parts(
    tmp_path: Path, monkeypatch, end: bytes, part_bytes: int
) -> None:
    data = b"a\n\nbcd\r\n" + b"long " * 9 + b"\n{}\n" * 5 + end
    (tmp_path / "a.jsonl").write_bytes(data)
    lines = data.split(b"\n")
    lines = lines if lines[-1] else lines[:-1]
    monkeypatch.setattr(json_lines, "LINE_PART_BYTES", part_bytes)
    pieces = json_lines.json_pieces(tmp_path / "a.jsonl", 2)
    assert [i for first, stop, _ in pieces for i in range(first, stop)] == list(range(len(lines)))
    for first, stop, offset in pieces:
        assert stop - first <= 2
        assert data[offset:].split(b"\n")[: stop - first] == lines[first:stop]


def test_files_are_looked_into_anywhere_in_any_order(source: SourceConfig, monkeypatch) -> None:
    monkeypatch.setattr(planning, "LINE_PART_BYTES", 64)
    corpus = CorpusConfig(source=source, files_per_task=4)
    seen = []

    def run(look, parts):
        seen.extend(parts)
        found = {part: look(part) for part in reversed(parts)}
        return [found[part] for part in parts]

    root, files = source_root(source), list_files(source)
    plan = plan_corpus(corpus, root, files, run)
    data = [d.data for unit in plan.units for d in read_unit(corpus, root, unit, None)]
    assert data == [f"x = {i}\n".encode() for i in range(23)]
    assert len(seen) == {"folder": 0, "parquet": 2}.get(source.kind, len(seen))
    assert source.kind != "jsonl" or len(seen) > 10


def test_lines_that_are_none_by_their_first_bytes_are_refused_with_the_right_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\x1f\x8b" + b"\n" * 100)
    corpus = CorpusConfig(source=SourceConfig(kind="jsonl", path=str(tmp_path)))
    with pytest.raises(InputError, match=r"a\.jsonl: not plain lines \(gz\): end its name in \.gz"):
        make_plan(corpus)
