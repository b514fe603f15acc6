"""Numbered rows of a source: files at a path or a URI, or a set on the Hugging Face hub."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.errors import InputError
from codepmp_ray.preference.sources.rows import Numbered, Reject
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.storage import is_uri
from codepmp_ray.storage.inputs import (
    InputFile,
    input_file,
    list_remote,
    open_binary,
    open_parquet,
)

_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_BUFFER_BYTES = 1 << 20
_SUFFIXES = (".jsonl", ".json", ".parquet")


def data_files(config: DataSourceConfig) -> list[InputFile]:
    """The files of a source with a path, in order. Raises InputError and StorageError."""
    location = config.path or ""
    found = _remote_files(location) if is_uri(location) else _local_files(location)
    if found is None:
        raise InputError(
            f"The training source {config.label!r} has path={config.path}, which does not exist.",
            "Name a JSON lines or Parquet file or a folder of them, at a path or a URI.",
        )
    if not found:
        raise InputError(
            f"The training source {config.label!r}: the folder {config.path} holds none of "
            f"{', '.join(_SUFFIXES)} (also .gz, .zst).",
        )
    return found


def _local_files(location: str) -> list[InputFile] | None:
    """The file, or those in the folder; None where nothing is there."""
    path = input_file(location)
    assert isinstance(path, Path)
    if path.is_file():
        return [path]
    if not path.exists():
        return None
    return [file for file in sorted(path.rglob("*")) if file.is_file() and _kind(file)]


def _remote_files(uri: str) -> list[InputFile] | None:
    """`_local_files` of a URI, which may have a pattern."""
    root, listed = list_remote(uri)
    files = [root / file.name for file in sorted(listed, key=lambda file: file.name)]
    if not files:
        return None
    is_one_file = [file.uri for file in files] == [uri]
    return [file for file in files if is_one_file or _kind(file)]


def read_source(config: DataSourceConfig) -> Iterator[Numbered]:
    """All rows, numbered from 0 over all files. Raises InputError when they cannot be read."""
    if config.hub_set:
        yield from enumerate(_hub_rows(config))
        return
    first = 0
    for file in data_files(config):
        try:
            for item in _file_rows(file, first):
                first = (item.index if isinstance(item, Reject) else item[0]) + 1
                yield item
        except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
            raise InputError(
                f"The training source {config.label!r}: {file} cannot be read "
                f"({' '.join(str(error).split())[:200]}).",
            ) from error


def _kind(file: InputFile) -> str | None:
    name = str(file).rpartition("/")[2]
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)


def _file_rows(file: InputFile, first: int) -> Iterator[Numbered]:
    if _kind(file) == ".parquet":
        with open_parquet(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield first, row
                    first += 1
        return
    compression = _COMPRESSED.get(Path(str(file)).suffix)
    with open_binary(file) as raw, pa.input_stream(raw, compression=compression) as stream:
        lines = io.BufferedReader(cast(Any, stream), _BUFFER_BYTES)
        if _is_array(lines):
            for row in _array(lines):
                yield _checked(first, row)
                first += 1
            return
        for line in lines:
            if not line.strip():
                continue
            try:
                yield _checked(first, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Reject(first, RejectReason.UNREADABLE, f"not a JSON line ({error})"[:200])
            first += 1


def _checked(index: int, row: Any) -> Numbered:
    if isinstance(row, dict):
        return index, row
    return Reject(index, RejectReason.UNREADABLE, f"holds {type(row).__name__}, not an object")


def _is_array(lines: io.BufferedReader) -> bool:
    """Whether the file is one JSON array, as ReClor's are, and not JSON lines."""
    return lines.peek(64).lstrip()[:1] == b"["


def _array(stream: BinaryIO) -> list[Any]:
    try:
        return json.load(stream)
    except ValueError as error:
        raise pa.ArrowInvalid(f"not a JSON array: {error}") from error


def _hub_rows(config: DataSourceConfig) -> Iterator[dict[str, Any]]:
    import datasets

    # HH-RLHF's subsets are folders of its repository, those of other sets configurations.
    kind = "data_dir" if config.kind == "hh_rlhf" else "name"
    options = {kind: config.subset} if config.subset else {}
    try:
        # Its overloads do not know of options that are given by name.
        found = cast(Any, datasets.load_dataset)(
            config.hub_set, split=config.split, revision=config.revision, **options
        )
    except Exception as error:
        raise InputError(
            f"The training source {config.label!r}: the hub set {config.hub_set} (split "
            f"{config.split}) cannot be loaded: {' '.join(str(error).split())[:300]}",
            "Check hub_id, subset, split and the network, or download the set and give its path.",
        ) from error
    yield from found
