"""Bad files, bad rows and any bytes: a typed reason each, never an exception, never a loss."""

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import dedup_key, extract_document, extract_unit
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import list_files, source_root
from codepmp_ray.errors import InputError
from codepmp_ray.reject_reasons import RejectReason

GOOD = "def good(x):\n    y = x\n    z = y\n    return z\n"


def run(corpus: CorpusConfig) -> tuple[list[dict], list[dict]]:
    root = source_root(corpus.source)
    plan = plan_corpus(corpus, root, list_files(corpus.source))
    units = [extract_unit(corpus, root, unit, plan.threshold) for unit in plan.units]
    for unit in units:
        ordinals = [r["ordinal"] for t in (unit.snippets, unit.rejected) for r in t.to_pylist()]
        assert sorted(ordinals) == list(range(unit.num_rows))
    snippets = [row for unit in units for row in unit.snippets.to_pylist()]
    rejected = [row for unit in units for row in unit.rejected.to_pylist()]
    ids = [r["snippet_id"] for r in snippets] + [r["row_id"] for r in rejected]
    assert len(set(ids)) == len(ids)
    assert {r["reason"] for r in rejected} <= {str(reason) for reason in RejectReason}
    return snippets, rejected


def reasons(rejected: list[dict]) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in rejected}


def test_each_kind_of_bad_file_has_its_reason(tmp_path: Path) -> None:
    contents = {
        "good.py": GOOD.encode(),
        "copy.py": GOOD.encode(),
        "bom.py": b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode(),
        "binary.py": b"x = '\0'\n",
        "latin.py": "x = 'é'\n".encode("latin-1"),
        "utf16.py": GOOD.encode("utf-16"),
        "empty.py": b"",
        "blank.py": b" \n\t\n",
        "blank_too.py": b" \n\t\n",
        "notes.txt": b"hello\n",
        "broken.py": b"def f(:\n",
        "plain.py": b"x = 1\n",
        "short.py": b"def f(): pass\n",
        "long.py": GOOD.encode() + b"    # more\n" * 200 + b"    return x\n",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.py")
    with open(tmp_path / "huge.py", "wb") as handle:
        handle.truncate(100 * 2**20)
    source = SourceConfig(kind="folder", path=str(tmp_path), license="MIT")
    snippets, rejected = run(CorpusConfig(source=source, files_per_task=5))
    assert {row["path"]: row["code"] for row in snippets} == dict.fromkeys(
        ("good.py", "copy.py", "bom.py"), GOOD.rstrip()
    )
    assert {(row["license"], row["language"], row["kind"]) for row in snippets} == {
        ("MIT", "python", "function")
    }
    assert reasons(rejected) == {
        "binary.py": "binary",
        "latin.py": "not_utf8",
        "utf16.py": "not_utf8",
        "empty.py": "empty",
        "blank.py": "empty",
        "blank_too.py": "empty",
        "notes.txt": "unknown_language",
        "broken.py": "parse_error",
        "plain.py": "no_snippet",
        "short.py": "too_short",
        "long.py": "too_long",
        "gone.py": "unreadable",
        "pipe.py": "unreadable",
        "huge.py": "too_large",
    }
    details = {row["path"]: row["detail"] for row in rejected}
    assert details["huge.py"] == "104857600 bytes, max_file_bytes=1000000"
    payload = next(row["payload"] for row in rejected if row["path"] == "short.py")
    assert json.loads(payload)["name"] == "f"


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch) -> None:
    from codepmp_ray.corpus import documents

    (tmp_path / "big.py").write_text(GOOD)
    monkeypatch.setattr(documents, "open", lambda *a: pytest.fail("opened"), raising=False)
    source = SourceConfig(kind="folder", path=str(tmp_path), license="MIT")
    _, (row,) = run(CorpusConfig(source=source, max_file_bytes=10))
    assert row["reason"] == "too_large"


def test_json_lines(tmp_path: Path) -> None:
    row = {"content": GOOD, "path": "a.py", "license": "MIT"}
    lines = [
        json.dumps({**row, "repo": "o/r"}).encode(),
        json.dumps({**row, "path": "list.py", "license": ["MIT", "ISC"]}).encode(),
        json.dumps({**row, "path": None, "lang": "Python"}).encode(),
        json.dumps({**row, "path": "gpl.py", "license": ["MIT", "GPL-3.0-only"]}).encode(),
        json.dumps({**row, "path": "unknown.py", "license": None}).encode(),
        json.dumps({**row, "path": "lang.py", "lang": "COBOL"}).encode(),
        json.dumps({**row, "path": "big.py", "content": "x" * 2_000}).encode(),
        json.dumps({**row, "path": "half.py", "content": GOOD + "# \ud800"}).encode(),
        json.dumps({"text": GOOD}).encode(),
        b"{not json",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 50_000,
        b"",
        b'{"content": "' + b"y" * 200_000 + b'"}',
    ]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    source = SourceConfig(kind="jsonl", path=str(file))
    snippets, rejected = run(CorpusConfig(source=source, max_file_bytes=1_000, files_per_task=4))
    assert [(r["path"], r["repo"], r["license"]) for r in snippets] == [
        ("a.py", "o/r", "MIT"),
        ("list.py", None, "MIT AND ISC"),
        ("rows.jsonl#2", None, "MIT"),
    ]
    assert reasons(rejected) == {
        "gpl.py": "license_not_allowed",
        "unknown.py": "license_not_allowed",
        "lang.py": "unknown_language",
        "rows.jsonl#6": "too_large",
        "half.py": "not_utf8",
        "rows.jsonl#8": "unreadable",
        "rows.jsonl#9": "unreadable",
        "rows.jsonl#10": "not_utf8",
        "rows.jsonl#11": "unreadable",
        "rows.jsonl#12": "unreadable",
        "rows.jsonl#13": "unreadable",
        "rows.jsonl#14": "too_large",
    }


def test_parquet_with_damaged_shards(tmp_path: Path) -> None:
    rows = [{"code": GOOD, "file": f"{i}.py", "lic": ["mit"]} for i in range(50)]
    noise = [
        {**row, "code": f"# {hashlib.sha512(row['file'].encode()).hexdigest()}\n" + GOOD}
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=20)
    damaged = tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist(noise), damaged, row_group_size=20, compression="zstd")
    data = bytearray(damaged.read_bytes())
    group = pq.ParquetFile(damaged).metadata.row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    damaged.write_bytes(data)
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-300])
    pq.write_table(pa.table({"code": [1, 2]}), tmp_path / "d.parquet")
    utf8 = pa.array([GOOD.encode(), b"# \xff", None, b"x" * 2_000]).cast(pa.binary())
    broken_text = pa.Array.from_buffers(pa.string(), 4, utf8.buffers())
    pq.write_table(
        pa.table(
            {"code": broken_text, "file": [f"e{i}.py" for i in range(4)], "lic": [["MIT"]] * 4}
        ),
        tmp_path / "e.parquet",
    )
    source = SourceConfig(
        kind="parquet",
        path=str(tmp_path),
        content_column="code",
        path_column="file",
        license_column="lic",
    )
    snippets, rejected = run(CorpusConfig(source=source, max_file_bytes=1_000))
    whole = [row for row in snippets if row["path"] != "e0.py"]
    assert len(whole) == 50 + 30, reasons(rejected)
    assert len(snippets) == len(whole) + 1
    assert [row["path"] for row in rejected] == [
        *(f"b.parquet#{i}" for i in range(20, 40)),
        "c.parquet",
        "d.parquet",
        "e1.py",
        "e.parquet#2",
        "e.parquet#3",
    ]
    assert [row["reason"] for row in rejected] == ["unreadable"] * 22 + [
        "not_utf8",
        "unreadable",
        "too_large",
    ]


def test_a_source_that_shrinks_or_goes_while_it_is_read(tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    line = json.dumps({"content": GOOD, "path": "a.py", "license": "MIT"}) + "\n"
    (root / "a.jsonl").write_text(line * 3)
    corpus = CorpusConfig(source=SourceConfig(kind="jsonl", path=str(root)))
    (unit,) = plan_corpus(corpus, root, list_files(corpus.source)).units
    (root / "a.jsonl").write_text(line)
    tables = extract_unit(corpus, root, unit, None)
    assert tables.rejected["reason"].to_pylist() == ["unreadable"] * 2
    (root / "a.jsonl").unlink()
    root.rmdir()
    with pytest.raises(InputError, match="is not there"):
        extract_unit(corpus, root, unit, None)


def test_dedup_ignores_blank_space_that_means_nothing() -> None:
    key = dedup_key("def f():\n    return 1", "python")
    assert dedup_key("def f():  \n\n    return 1\n", "python") == key
    assert dedup_key("def f():\n  return 1", "python") != key
    assert dedup_key("def f():\n    return 1", "other") != key
    assert len(key) == 16


code_like = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("def fclas():\n \r\t'\"\\@#=1", max_size=120).map(str.encode),
    st.text("\n\r (:'", max_size=30).map(lambda text: (GOOD + text + GOOD).encode()),
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(code_like, st.sampled_from([None, "python", "Go"]), st.text(max_size=5))
def test_any_bytes_end_in_rows_with_a_reason(data: bytes, language: str | None, path: str) -> None:
    document = Document("key", path + ".py", language=language, licenses=("MIT",), data=data)
    rows = list(extract_document(document, CorpusConfig(min_lines=1)))
    assert rows
    for is_snippet, row in rows:
        if is_snippet:
            assert row["code"].encode().strip()
            assert 1 <= row["start_line"] <= row["end_line"]
        else:
            RejectReason(row["reason"])
            json.dumps(row).encode()
