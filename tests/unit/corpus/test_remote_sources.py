"""Sources at URIs, data sets of the hub and on disk, and contents that are stored apart."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.corpus import hub
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.corpus.documents import Document, read_unit
from codepmp_ray.corpus.filters.opt_out import load_opt_out
from codepmp_ray.corpus.planning import load_plan, plan_corpus, recorded_root, save_plan
from codepmp_ray.corpus.sources import input_root, list_source, listing_digest
from codepmp_ray.errors import CodePMPError, ConfigError, InputError, StorageError
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import stage_fingerprints
from codepmp_ray.storage import LocalStore
from codepmp_ray.storage.inputs import list_remote
from tests.hub_server import COMMIT, hub_server
from tests.processes import PATIENCE_S
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

CODE = [f"def f_{i}(x):\n    return x + {i}\n" for i in range(10)]


@pytest.fixture
def fs(s3_server: S3Server) -> Any:
    return fsspec.filesystem("s3", use_listings_cache=False)


def read_all(source: SourceConfig, store: LocalStore, **corpus: Any) -> list[Document]:
    """All documents of a source, through a plan that is stored and loaded again."""
    config = CorpusConfig(source=source, files_per_task=3, **corpus)
    root, files = list_source(source)
    save_plan(store, plan_corpus(config, root, files))
    plan = load_plan(store)
    assert plan.num_taken == sum(unit.num_documents for unit in plan.units)
    return [
        document
        for unit in plan.units
        for document in read_unit(config, input_root(source, plan.root), unit, plan.threshold)
    ]


def texts(documents: list[Document]) -> list[str]:
    return [(document.data or b"").decode() for document in documents]


def put_parquet(fs: Any, uri: str, rows: list[dict[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    fs.pipe_file(uri, sink.getvalue().to_pybytes())


def test_a_folder_of_files_at_a_uri(fs: Any, s3_bucket: str, tmp_path: Path) -> None:
    for name in ("b/z.py", "b/a b.py", "a.py", ".git/x", "c/.hidden.py", "__pycache__/x.pyc"):
        fs.pipe_file(f"{s3_bucket}/code/{name}", CODE[len(name) % 10].encode())
    fs.pipe_file(f"{s3_bucket}/code/empty.py", b"")
    fs.pipe_file(f"{s3_bucket}/code/large.py", b"x" * 3_000)
    fs.pipe_file(f"{s3_bucket}/codex/other.py", b"")
    source = SourceConfig(kind="folder", path=f"{s3_bucket}/code/", license="MIT")
    found = read_all(source, LocalStore(tmp_path), max_file_bytes=2_000)
    assert [d.key for d in found] == ["a.py", "b/a b.py", "b/z.py", "empty.py", "large.py"]
    assert texts(found)[:4] == [CODE[4], CODE[8], CODE[6], ""]
    assert found[4].reason == RejectReason.TOO_LARGE and found[4].repo == "code"
    assert recorded_root(LocalStore(tmp_path)) == f"{s3_bucket}/code"


def test_the_listing_changes_with_the_content(fs: Any, s3_bucket: str) -> None:
    source = SourceConfig(kind="folder", path=s3_bucket, license="MIT")
    fs.pipe_file(f"{s3_bucket}/a.py", b"x = 1")
    before = listing_digest(list_source(source)[1])
    assert listing_digest(list_source(source)[1]) == before
    fs.pipe_file(f"{s3_bucket}/a.py", b"x = 2")
    assert listing_digest(list_source(source)[1]) != before


@pytest.mark.parametrize("path", ["data", "data/*.parquet", "data/b.parquet"])
def test_parquet_by_folder_pattern_or_name(
    fs: Any, s3_bucket: str, tmp_path: Path, path: str
) -> None:
    for name, first in (("b", 0), ("c", 5)):
        rows = [{"content": code, "path": f"{i}.py"} for i, code in enumerate(CODE)]
        put_parquet(fs, f"{s3_bucket}/data/{name}.parquet", rows[first : first + 5])
    fs.pipe_file(f"{s3_bucket}/data/readme.txt", b"")
    source = SourceConfig(kind="parquet", path=f"{s3_bucket}/{path}")
    expected = CODE[:5] if path.endswith("b.parquet") else CODE
    assert texts(read_all(source, LocalStore(tmp_path))) == expected


def test_json_lines_and_a_server_that_fails(
    fs: Any, s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    lines = ["{", *(json.dumps({"content": code}) for code in CODE)]
    fs.pipe_file(f"{s3_bucket}/x.jsonl", "\n".join(lines).encode())
    source = SourceConfig(kind="jsonl", path=f"{s3_bucket}/x.jsonl")
    found = read_all(source, LocalStore(tmp_path))
    assert texts(found) == ["", *CODE] and found[0].reason == RejectReason.UNREADABLE
    # Damage is a rejected row; a server that says no is the end of the job.
    s3_server.fail("denied", method="GET", times=1_000, part="x.jsonl")
    try:
        with pytest.raises(StorageError, match="Check the credentials"):
            read_all(source, LocalStore(tmp_path / "again"))
    finally:
        s3_server.fail(None)


def test_damaged_parquet_is_not_a_fault_of_the_server(
    fs: Any, s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    put_parquet(fs, f"{s3_bucket}/a.parquet", [{"content": CODE[0]}])
    fs.pipe_file(f"{s3_bucket}/b.parquet", b"PAR1 nothing PAR1")
    source = SourceConfig(kind="parquet", path=s3_bucket)
    found = read_all(source, LocalStore(tmp_path))
    assert [document.reason for document in found] == [None, RejectReason.UNREADABLE]
    s3_server.fail("denied", method="*", times=1_000, part="a.parquet")
    try:
        with pytest.raises(StorageError, match=r"Cannot read s3://.*a\.parquet"):
            read_all(source, LocalStore(tmp_path / "again"))
    finally:
        s3_server.fail(None)


def test_single_files_over_http(
    s3_server: S3Server, s3_bucket: str, fs: Any, tmp_path: Path
) -> None:
    name = s3_bucket.removeprefix("s3://")
    url = f"{s3_server.url}/{name}/x.jsonl"
    fs.pipe_file(f"{s3_bucket}/x.jsonl", b'{"content": "x = 1"}\n', ACL="public-read")
    assert httpx.get(url).status_code == 200
    root, files = list_remote(url)
    assert root.uri == f"{s3_server.url}/{name}" and [file.name for file in files] == ["x.jsonl"]
    source = SourceConfig(kind="jsonl", path=url)
    assert texts(read_all(source, LocalStore(tmp_path))) == ["x = 1"]


def test_an_empty_or_missing_place_is_named(s3_bucket: str, s3_server: S3Server) -> None:
    with pytest.raises(InputError, match="nowhere: nothing is there"):
        list_source(SourceConfig(kind="parquet", path=f"{s3_bucket}/nowhere"))
    with pytest.raises(CodePMPError, match="no-such-bucket"):
        list_source(SourceConfig(kind="parquet", path="s3://no-such-bucket-anywhere"))


def test_lists_and_evaluation_sets_at_uris(fs: Any, s3_bucket: str) -> None:
    fs.pipe_file(f"{s3_bucket}/out.txt", b"me/code\n# comment\n")
    assert load_opt_out(f"{s3_bucket}/out.txt").match("Me/Code", None)
    words = " ".join(f"word{i}" for i in range(12))
    fs.pipe_file(f"{s3_bucket}/set.jsonl.gz", gzip.compress(json.dumps({"t": words}).encode()))
    sets = ({"name": "mine", "path": f"{s3_bucket}/set.jsonl.gz", "columns": ("t",)},)
    settings = CorpusConfig(decontamination={"sets": sets}).decontamination  # type: ignore[arg-type]
    assert set(load_evaluation_index(settings).ngrams.values()) == {"mine"}
    data = {"corpus": {"filters": {"opt_out_path": f"{s3_bucket}/out.txt"}}}
    fingerprint = stage_fingerprints(parse_recipe(data, "test"))["corpus"]
    fs.pipe_file(f"{s3_bucket}/other.txt", b"")
    data = {"corpus": {"filters": {"opt_out_path": f"{s3_bucket}/other.txt"}}}
    assert stage_fingerprints(parse_recipe(data, "test"))["corpus"] != fingerprint


@pytest.mark.parametrize("kind", ["one split", "several splits", "a selection"])
def test_a_data_set_that_save_to_disk_wrote(tmp_path: Path, kind: str) -> None:
    rows = Dataset.from_dict({"content": CODE, "path": [f"{i}.py" for i in range(10)]})
    if kind == "a selection":
        rows = rows.select([7, 3, 3])
    saved: Any = DatasetDict(train=rows, test=rows.select([0])) if "several" in kind else rows
    saved.save_to_disk(tmp_path / "saved set")
    source = SourceConfig(kind="huggingface", path=str(tmp_path / "saved set"))
    found = read_all(source, LocalStore(tmp_path / "run"))
    assert texts(found) == ([CODE[7], CODE[3], CODE[3]] if kind == "a selection" else CODE)
    assert len({document.key for document in found}) == len(found)
    if "several" in kind:
        with pytest.raises(ConfigError, match=r"split='dev'.*train, test"):
            list_source(source.model_copy(update={"split": "dev"}))


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set that save_to_disk wrote"):
        list_source(SourceConfig(kind="huggingface", path=str(tmp_path)))


class FakeBuilder:
    """What `datasets.load_dataset_builder` returns, as far as it is used."""

    def __init__(self, commit: str, names: list[str]) -> None:
        urls = [f"hf://datasets/me/code@{commit}/{name}" for name in names]
        self.config = type("Config", (), {"data_files": {"train": urls}})()


def test_the_hub_s_commit_is_kept_for_a_job_that_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    commits = {"main": "a" * 40, None: "a" * 40}

    def builder(path: str, name: str | None, revision: str | None) -> FakeBuilder:
        asked.append(revision)
        return FakeBuilder(commits.get(revision, revision or ""), ["b.parquet", "a.parquet"])

    monkeypatch.setattr("datasets.load_dataset_builder", builder)
    source = SourceConfig(kind="huggingface", path="me/code")
    root, files = list_source(source)
    assert str(root) == f"hf://datasets/me/code@{'a' * 40}"
    assert [file.name for file in files] == ["a.parquet", "b.parquet"]
    commits[None] = "b" * 40  # somebody pushed
    again, _ = list_source(source, recorded=str(root))
    assert again == root and asked == [None, "a" * 40]
    assert str(list_source(source)[0]).endswith("b" * 40)
    with pytest.raises(ConfigError, match=r"split='dev'.*has train"):
        list_source(source.model_copy(update={"split": "dev"}))


def test_what_of_the_hub_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SourceConfig(kind="huggingface", path="me/code")
    monkeypatch.setattr(hub, "_data_files", lambda *_: [f"hf://datasets/me/code@{'a' * 40}/x.csv"])
    with pytest.raises(ConfigError, match=r"x\.csv is neither.*refs/convert/parquet"):
        list_source(source)
    monkeypatch.setattr(hub, "_data_files", lambda *_: ["/cache/x.parquet"])
    with pytest.raises(ConfigError, match="not read from a commit"):
        list_source(source)
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'me/code' on the Hub")

    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    with pytest.raises(InputError, match=r"cannot be resolved.*Couldn't reach.*save_to_disk"):
        list_source(source)


def test_contents_stored_apart(
    fs: Any, s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    contents = {
        "zipped": gzip.compress(CODE[0].encode()),
        "plain": CODE[1].encode(),
        "latin": gzip.compress("# caf\xe9\n".encode("latin-1")),
        "cut": gzip.compress(CODE[2].encode())[:-9],
        "bomb": gzip.compress(b"x" * 5_000_000),
    }
    for name, data in contents.items():
        fs.pipe_file(f"{s3_bucket}/content/{name}", data)
    ids = ["zipped", "plain", "latin", "gone", "cut", "bomb", None, "../secret/x"]
    rows = [
        {"blob_id": name, "src_encoding": "latin-1" if name == "latin" else "UTF-8", "path": "x.py"}
        for name in ids
    ]
    put_parquet(fs, f"{s3_bucket}/ids/a.parquet", rows)
    source = SourceConfig.model_validate(
        {
            "kind": "parquet",
            "path": f"{s3_bucket}/ids",
            "columns": "stack_v2",
            "content_uri": f"{s3_bucket}/content/{{blob_id}}",
        }
    )
    found = read_all(source, LocalStore(tmp_path), max_file_bytes=10_000)
    assert texts(found)[:3] == [CODE[0], CODE[1], "# caf\xe9\n"]
    details = [f"{document.reason} {document.detail}" for document in found[3:]]
    assert [words.split()[0] for words in details] == [
        "unreadable", "unreadable", "too_large", "unreadable", "unreadable"
    ]  # fmt: skip
    for words, detail in zip(("gone is not there", "cut short", "10000", "no blob id"), details,
                             strict=False):  # fmt: skip
        assert words in detail
    s3_server.fail("denied", method="GET", times=1_000, part="content/plain")
    try:
        with pytest.raises(StorageError, match="Check the credentials"):
            read_all(source, LocalStore(tmp_path / "again"))
    finally:
        s3_server.fail(None)


_READ_THE_HUB = """
import json
import os
from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.documents import read_unit
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import input_root, list_source

source = SourceConfig(kind="huggingface", path="me/code")
config = CorpusConfig(source=source, files_per_task=3)
root, files = list_source(source)
plan = plan_corpus(config, root, files)
again, _ = list_source(source, recorded=plan.root)
texts = [
    document.data.decode()
    for unit in plan.units
    for document in read_unit(config, input_root(source, plan.root), unit, None)
]
print(json.dumps([plan.root, str(again), texts]), flush=True)
os._exit(0)  # as jobs end: threads of the libraries below may abort an orderly end
"""


def test_a_data_set_is_read_in_place_from_a_server_with_the_hub_s_routes(tmp_path: Path) -> None:
    files = {}
    for name, rows in (
        ("train-00000", CODE[:6]),
        ("train-00001", CODE[6:]),
        ("test-00000", ["no"]),
    ):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"content": rows}), sink, row_group_size=2)
        files[f"data/{name}.parquet"] = sink.getvalue().to_pybytes()
    with hub_server(files) as (address, requests):
        # In a process of its own: the hub's address is read when its library is imported.
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", _READ_THE_HUB],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 0, done.stderr
    recorded, again, found = json.loads(done.stdout.splitlines()[-1])
    assert recorded == again == f"hf://datasets/me/code@{COMMIT}"
    assert found == CODE
    read = [request for request in requests if ".parquet" in request]
    assert read and all("bytes=" in request for request in read)  # parts, never whole files
    assert not any("test-00000" in request for request in read)
