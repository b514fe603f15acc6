"""Data files of any type and with any damage: as many rows come out as were planned."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig, NearDuplicateConfig, SourceConfig
from codepmp_ray.corpus.extraction import extract_unit
from codepmp_ray.corpus.planning import load_plan, plan_corpus, save_plan
from codepmp_ray.corpus.sources import list_files
from codepmp_ray.errors import InputError
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.storage import LocalStore

GOOD = "def good(x):\n    y = x\n    z = y\n    return z\n"
Kind = Literal["parquet", "jsonl"]


def read(root: Path, kind: Kind, later: bytes | None = None) -> list[dict[str, Any]]:
    """All rows of the source; `later` is what its only file holds once the plan is made."""
    source = SourceConfig(kind=kind, path=str(root), license="MIT")
    near = NearDuplicateConfig(enabled=False)
    corpus = CorpusConfig(source=source, near_duplicates=near, files_per_task=3)
    files = list_files(source)
    with tempfile.TemporaryDirectory() as folder:
        save_plan(LocalStore(folder), plan_corpus(corpus, root, files))
        plan = load_plan(LocalStore(folder))
    if later is not None:
        (root / files[0].name).write_bytes(later)
    rows = []
    for unit in plan.units:
        tables = extract_unit(corpus, root, unit, plan.threshold)
        for table in (tables.snippets, tables.rejected):
            table.validate(full=True)
            rows += table.to_pylist()
        assert tables.num_rows == unit.num_documents
    return sorted(rows, key=lambda row: row["path"])


def reasons(rows: list[dict[str, Any]]) -> dict[str, str | None]:
    return {row["path"]: row.get("reason") for row in rows}


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps({"content": GOOD, "path": "good.py"}))
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    bad = dict.fromkeys(("pipe.jsonl", "zero.jsonl", "loop.jsonl"), "unreadable")
    assert reasons(read(tmp_path, "jsonl")) == {"good.py": None, **bad}
    os.mkfifo(tmp_path / "pipe.parquet")
    table = pa.table({"content": [GOOD], "path": ["good.py"]})
    pq.write_table(table, tmp_path / "good.parquet")
    expected = {"good.py": None, "pipe.parquet": "unreadable"}
    assert reasons(read(tmp_path, "parquet")) == expected


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    line = json.dumps({"content": GOOD, "path": "a.py"})
    (tmp_path / "x.jsonl").write_text(f"{line}\n{line}")
    assert [row.get("reason") for row in read(tmp_path, "jsonl")] == [None, None]


def test_a_column_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    text, path = pa.array([GOOD]), pa.array(["x.py"])
    pq.write_table(pa.table({"content": text, "path": path}), tmp_path / "a.parquet")
    for name in ("content", "license"):
        columns = [text, path, pa.array(["GPL-3.0-only"]), pa.array(["MIT"])]
        table = pa.Table.from_arrays(columns, ["content", "path", name, name])
        pq.write_table(table, tmp_path / f"{name}.parquet")
    rows = read(tmp_path, "parquet")
    expected = {"content.parquet": "unreadable", "license.parquet": "unreadable", "x.py": None}
    assert reasons(rows) == expected
    assert {row.get("detail") for row in rows} >= {"more than one column 'license'"}


def test_cells_that_python_cannot_hold(tmp_path: Path) -> None:
    """A path without meaning is no path; a licence that cannot be read is not assumed."""
    days = pa.array([1, 2**30], pa.date32())
    bad = pa.array([b"GPL-3.0-only\xff", b"MIT"])
    licenses = pa.Array.from_buffers(pa.string(), 2, bad.buffers())
    pq.write_table(pa.table({"content": [GOOD] * 2, "lang": ["python"] * 2, "path": days}),
                   tmp_path / "a.parquet")  # fmt: skip
    pq.write_table(pa.table({"content": [GOOD] * 2, "lang": ["python"] * 2, "license": licenses}),
                   tmp_path / "b.parquet")  # fmt: skip
    assert reasons(read(tmp_path, "parquet")) == {
        "a.parquet#0": None,
        "a.parquet#1": None,
        "b.parquet#0": "unreadable",
        "b.parquet#1": None,
    }


MAP = pa.map_(pa.string(), pa.string())
NAMES = ("content", "path", "lang", "license", "blob_id", "a.b", "")
TEXT = st.sampled_from([GOOD, "x", "", None, "a.py", "MIT", "é\u202e"])
ARRAYS = st.one_of(
    st.lists(TEXT, min_size=3, max_size=3).flatmap(
        lambda texts: st.sampled_from(
            [
                pa.array(texts, pa.string()),
                pa.array(texts, pa.large_string()),
                pa.array(texts).dictionary_encode(),
                pa.array([text and text.encode() for text in texts], pa.binary()),
                pa.array([[text] for text in texts]),
                pa.array([{"text": text} for text in texts]),
                pa.array(
                    [[("k", text or "")] for text in texts], pa.map_(pa.string(), pa.string())
                ),
            ]
        )
    ),
    st.sampled_from(
        [
            pa.nulls(3),
            pa.array([1.5, float("nan"), None]),
            pa.array([2**62, -(2**62), None], pa.timestamp("ns")),
            pa.array([2**62, 0, None], pa.timestamp("us", tz="Mars/Phobos")),
            pa.array([2**62, 0, None], pa.duration("ns")),
        ]
    ),
)
COLUMNS = st.lists(
    st.tuples(
        st.sampled_from(["content", "path", "lang", "license", "blob_id", "a.b", ""]), ARRAYS
    ),
    max_size=5,
)
# Where to change a file, as a share of its length from the end (the footer), and to what.
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6)), max_size=3)


def damage(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for share, num_cut, new in changes:
        at = len(data) - int(share**3 * len(data))
        data = data[: max(0, at - num_cut)] + new + data[at:]
    return data


def check(data: bytes, later: bytes, kind: Kind) -> None:
    for second in (None, later):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"x.{kind}").write_bytes(data)
            try:
                rows = read(Path(folder), kind, second)
            except InputError as error:
                assert "hold no rows" in str(error) or "can be read" in str(error)
                return
        assert all(RejectReason(row["reason"]) for row in rows if "reason" in row)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(COLUMNS, st.booleans(), DAMAGE, DAMAGE)
def test_any_parquet_file(columns: Any, keep_schema: bool, before: Any, after: Any) -> None:
    content = ("content", pa.array([GOOD, None, "x"]))
    columns = columns if any(name == "content" for name, _ in columns) else [content, *columns]
    table = pa.Table.from_arrays([array for _, array in columns], [name for name, _ in columns])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=2, store_schema=keep_schema)
    data = sink.getvalue().to_pybytes()
    check(damage(data, before), damage(data, after), "parquet")


LINES = st.one_of(
    st.binary(max_size=30),
    st.integers(0, 20_000).map(lambda depth: b"[" * depth),
    st.integers(800, 1_000).map(lambda depth: b'{"path": ' + b"[" * depth + b"]" * depth + b"}"),
    st.sampled_from(
        [
            b"null", b"[]", b"3", b'"x"', b"NaN", b"1e999", b"9" * 5_000, b"\0" * 9,
            b"\xef\xbb\xbf{}",
            b'{"content": NaN, "path": 1e999}', b'{"content": "a", "content": "\\ud800"}',
            b'{"content": "\\u0000"}', '{"content": "x"}'.encode("utf-16"), b"{'content': 'x'}",
            b'{"content": "x", "path": "\\udfff", "repo": "\\ud800", "license": ["\\ud800"]}',
            b'{"content": "x", "license": {"MIT": 1}, "lang": ["python"], "path": {}}',
        ]
    ),
    st.just(json.dumps({"content": GOOD, "path": "a.py"}).encode()),
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(LINES, max_size=7), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), DAMAGE)
@example([b'{"content": "x"}'] * 9, b"\n", [(1.0, 0, b""), (0.5, 12, b"")])
def test_any_lines(lines: list[bytes], newline: bytes, after: Any) -> None:
    data = newline.join(lines)
    check(data, damage(data, after), "jsonl")
