"""Digests in fingerprints: one reading per machine and version, none of what stores list."""

from __future__ import annotations

import json
import os
import struct
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from codepmp_ray import content_digests, weights_digest
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.content_digests import content_digest
from codepmp_ray.runs import stage_fingerprints
from codepmp_ray.storage import open_store
from codepmp_ray.storage.inputs import RemoteFile

LARGE = 5_000_000
AN_HOUR_AGO = time.time() - 3600


def write(file: Path, data: bytes, mtime: float = AN_HOUR_AGO) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    os.utime(file, (mtime, mtime))


def safetensors(first: bytes = b"\0") -> bytes:
    header = json.dumps({"a": {"data_offsets": [0, LARGE]}}).encode()
    return struct.pack("<Q", len(header)) + header + first * LARGE


class Readings:
    """How often content was read; a new process knows nothing but the cache folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self._patch = monkeypatch
        for module in (content_digests, weights_digest):
            monkeypatch.setattr(module, "_read", self._counting(module._read))
        self.new_process()

    def _counting(self, read: Callable[..., str]) -> Callable[..., str]:
        def counted(*arguments: object) -> str:
            self.number += 1
            return read(*arguments)

        return counted

    def new_process(self) -> None:
        self._patch.setattr(content_digests, "_known", {})
        content_digests._listing_digest.cache_clear()

    def of(self, ask: Callable[[], object]) -> int:
        before = self.number
        ask()
        return self.number - before


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Readings:
    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path / "cache"))
    return Readings(monkeypatch)


def _model(folder: Path) -> Recipe:
    write(folder / "model.safetensors", safetensors())
    return Recipe.model_validate({"pretraining": {"model_name_or_path": str(folder)}})


def _file(folder: Path) -> Recipe:
    write(folder / "pairs.jsonl", bytes(LARGE))
    data = [{"path": str(folder / "pairs.jsonl")}]
    return Recipe.model_validate({"pretraining": {"data": data}})


def _folder(folder: Path) -> Recipe:
    write(folder / "part" / "pairs.jsonl", bytes(LARGE))
    return Recipe.model_validate({"pretraining": {"data": [{"path": str(folder)}]}})


def _scheme(folder: Path) -> Recipe:
    write(folder / "pairs.jsonl", bytes(LARGE))
    data = [{"path": f"file://{folder}/pairs.jsonl"}]
    return Recipe.model_validate({"pretraining": {"data": data}})


def _pool(folder: Path) -> Recipe:
    write(folder / "pool.jsonl", bytes(LARGE))
    return Recipe.model_validate({"candidates": {"pool_path": str(folder / "pool.jsonl")}})


KINDS = {"model": _model, "file": _file, "folder": _folder, "file://": _scheme, "pool": _pool}


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_a_start_reads_no_content_that_an_earlier_one_has_read(
    make: Callable[[Path], Recipe], readings: Readings, tmp_path: Path
) -> None:
    recipe = make(tmp_path / "there")
    first = stage_fingerprints(recipe)
    assert readings.of(lambda: stage_fingerprints(recipe)) == 0
    readings.new_process()
    assert readings.of(lambda: stage_fingerprints(recipe)) == 0
    assert stage_fingerprints(recipe) == first
    (file,) = (path for path in (tmp_path / "there").rglob("*") if path.is_file())
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    write(file, bytes(changed), AN_HOUR_AGO + 1)  # of the same size
    assert readings.of(lambda: stage_fingerprints(recipe)) == 1
    assert stage_fingerprints(recipe) != first


def test_another_file_with_the_old_time_is_another_file(readings: Readings, tmp_path: Path) -> None:
    place, other = tmp_path / "pairs.jsonl", tmp_path / "other"
    write(place, bytes(LARGE))
    write(other, b"\1" * LARGE)
    first = content_digest(str(place))
    other.rename(place)
    assert content_digest(str(place)) != first


def test_a_file_that_may_still_change_is_read_each_time(readings: Readings, tmp_path: Path) -> None:
    place = tmp_path / "pairs.jsonl"
    now = time.time()
    write(place, bytes(LARGE), now)
    first = content_digest(str(place))
    write(place, b"\1" * LARGE, now)  # within one tick of the clock of the file system
    assert content_digest(str(place)) != first
    assert not (tmp_path / "cache").exists()


def test_without_a_cache_folder_content_is_read(
    readings: Readings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path / "a file"))
    place = tmp_path / "pairs.jsonl"
    write(place, bytes(LARGE))
    first = content_digest(str(place))
    readings.new_process()
    assert readings.of(lambda: content_digest(str(place))) == 1
    assert content_digest(str(place)) == first


def test_a_damaged_entry_of_the_cache_is_made_again(readings: Readings, tmp_path: Path) -> None:
    place = tmp_path / "pairs.jsonl"
    write(place, bytes(LARGE))
    first = content_digest(str(place))
    (entry,) = (tmp_path / "cache" / "digests").iterdir()
    entry.write_bytes(b"\xff")
    readings.new_process()
    assert content_digest(str(place)) == first
    assert entry.read_text() == first


def test_of_an_object_store_the_listing_is_asked_and_no_content(
    s3_bucket: str, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: RemoteFile, *arguments: object) -> None:
        raise AssertionError(f"{self.uri} is read")

    monkeypatch.setattr(RemoteFile, "open", never)
    monkeypatch.setattr(RemoteFile, "read_bytes", never)
    store = open_store(f"{s3_bucket}/there")
    store.put("pairs.jsonl", b"one")
    store.put("model/model.safetensors", safetensors())
    recipe = Recipe.model_validate(
        {
            "pretraining": {
                "model_name_or_path": store.locate("model"),
                "data": [{"path": store.locate("pairs.jsonl")}],
            },
            "corpus": {"filters": {"opt_out_path": store.locate("pairs.jsonl")}},
        }
    )
    prints = [stage_fingerprints(recipe)]
    assert readings.of(lambda: stage_fingerprints(recipe)) == 0
    for name, data in (("pairs.jsonl", b"two"), ("model/model.safetensors", safetensors(b"\1"))):
        store.put(name, data)  # of the same size
        readings.new_process()
        prints.append(stage_fingerprints(recipe))
    assert [found["pretraining"] for found in prints] == list(
        dict.fromkeys(found["pretraining"] for found in prints)
    )
    assert prints[0]["corpus"] != prints[1]["corpus"] == prints[2]["corpus"]
    assert readings.number == 0


def test_where_a_store_tells_no_version_content_is_read_in_parts(
    readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's memory file system lists sizes and nothing that a write changes for sure."""
    sizes: list[int] = []
    opens = RemoteFile.open

    def counting(self: RemoteFile, *arguments: str) -> object:
        file = opens(self, *arguments)
        reads = file.read

        def read(size: int = -1) -> bytes:
            sizes.append(size)
            return reads(size)

        file.read = read  # type: ignore[method-assign]
        return file

    monkeypatch.setattr(RemoteFile, "open", counting)
    uri = f"memory://{uuid.uuid4().hex}/pairs.jsonl"
    fs = fsspec.filesystem("memory")
    fs.pipe_file(uri, bytes(LARGE))
    first = content_digest(uri)
    assert len(sizes) > LARGE // content_digests._CHUNK_BYTES
    assert max(sizes) <= content_digests._CHUNK_BYTES and min(sizes) > 0
    fs.pipe_file(uri, b"\1" * LARGE)
    readings.new_process()
    assert content_digest(uri) != first


def test_what_is_missing_is_as_if_empty_here_and_there(
    s3_bucket: str, readings: Readings, tmp_path: Path
) -> None:
    nothing = content_digest(None)
    assert content_digest(str(tmp_path / "none")) == nothing
    assert content_digest(f"{s3_bucket}/none.jsonl") == nothing
