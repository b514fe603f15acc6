"""Numbered rows of a source: local files, or a set on the Hugging Face hub."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.errors import InputError
from codepmp_ray.preference.sources.rows import Numbered, Reject
from codepmp_ray.records import RejectReason

_COMPRESSED = (".gz", ".zst")
_SUFFIXES = (".jsonl", ".json", ".parquet")


def data_files(config: DataSourceConfig) -> list[Path]:
    """The files of a local source, in order. Raises InputError."""
    path = Path(config.path or "").expanduser()
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(
            f"The training source {config.label!r} has path={config.path}, which does not exist.",
            "Name a JSON lines or Parquet file or a folder of them, on storage that every node "
            "sees.",
        )
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _kind(file)]
    if not files:
        raise InputError(
            f"The training source {config.label!r}: the folder {config.path} holds none of "
            f"{', '.join(_SUFFIXES)} (also .gz, .zst).",
        )
    return files


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


def _kind(file: Path) -> str | None:
    name = file.name
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)


def _file_rows(file: Path, first: int) -> Iterator[Numbered]:
    if _kind(file) == ".parquet":
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield first, row
                    first += 1
        return
    # Arrow opens .gz and .zst by their name.
    with pa.input_stream(str(file), compression="detect") as stream:
        lines = io.BufferedReader(cast(Any, stream))
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
