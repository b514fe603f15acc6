"""Data files whose rows are code files: what their columns mean, and Parquet (lines: `json_lines`).

A row's index is its position in its file, from 0. Files are cut into pieces that can be read
without reading what comes before them. What does not depend on the columns serves other rows as
well (`row_shards`).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.storage.inputs import InputFile, open_parquet

# A piece is what one task commits; smaller ones would cost more markers than work.
_MIN_PARQUET_PIECE_ROWS = 2_000
# What pyarrow raises for a damaged file: names that are not UTF-8 and sizes beyond any number too.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, LookupError)


class UnreadableRow(ValueError):
    """A row, or the file around it, is damaged; the message says how."""


class OversizedRow(ValueError):
    """A row's content is over the limit."""


def parquet_pieces(path: InputFile, source: SourceConfig, rows: int) -> list[tuple[int, int, int]]:
    """(first row, row after the last, row group) of each piece of about `rows` rows.

    Raises UnreadableRow when the file is not Parquet or has no text in the content column.
    """
    require_plain_file(path)
    try:
        with open_parquet(path) as file:
            check_columns(file.schema_arrow, source)
            return row_group_pieces(file, max(rows, _MIN_PARQUET_PIECE_ROWS))
    except UnreadableRow:
        raise
    except PARQUET_ERRORS as error:
        raise UnreadableRow(f"not a readable Parquet file ({one_line(error)})") from error


def require_plain_file(path: InputFile) -> None:
    """Raise UnreadableRow for pipes, which would wait for a writer, and devices without end."""
    if not isinstance(path, Path):
        return
    try:
        is_plain = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error
    if not is_plain:
        raise UnreadableRow("not a plain file")


def row_group_pieces(file: pq.ParquetFile, rows: int) -> list[tuple[int, int, int]]:
    """(first row, row after the last, row group) of each piece of at most `rows` rows."""
    pieces, first = [], 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        for start in range(0, size, rows):
            pieces.append((first + start, first + min(start + rows, size), group))
        first += size
    return pieces


def iter_row_group(
    file: pq.ParquetFile, group: int, first: int, stop: int, columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch, int]]:
    """(index, batch, position in the batch) of the rows [first, stop), which lie in `group`."""
    index = sum(file.metadata.row_group(i).num_rows for i in range(group))
    for batch in file.iter_batches(64, row_groups=[group], columns=columns):
        for i in range(max(first - index, 0), min(stop - index, batch.num_rows)):
            yield index + i, batch, i
        index += batch.num_rows
        if index >= stop:
            return


def read_parquet_piece(
    path: InputFile, source: SourceConfig, first: int, stop: int, group: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """(index, row or what is wrong with it) for each row of a piece.

    A row maps configured column names to values; the content is bytes, and is not turned into a
    Python object when it is over `max_bytes`. Raises UnreadableRow when the file is damaged.

    A piece by itself costs its whole row group, which may be as large as the file; one that goes on
    where the last one of this process ended reads nothing again.
    """
    key = (str(path), source, group, max_bytes)
    if _open.rows is None or _open.key != key or first < _open.next:
        _open.rows, _open.key, _open.next = (
            _group_rows(path, source, first, group, max_bytes),
            key,
            0,
        )
    rows = _open.rows
    try:
        for index, row in rows:
            _open.next = index + 1
            if index >= first:
                yield index, row
            if index + 1 >= stop:
                return
    except UnreadableRow:
        _open.rows = None
        raise


@dataclass
class _OpenGroup:
    """The row group that this process is in the middle of, and the next row of it."""

    rows: Iterator[tuple[int, dict[str, Any] | ValueError]] | None = None
    key: tuple[str, SourceConfig, int, int] | None = None
    next: int = 0


_open = _OpenGroup()


def _group_rows(
    path: InputFile, source: SourceConfig, first: int, group: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    try:
        with open_parquet(path) as file:
            check_columns(file.schema_arrow, source)
            columns = [name for name in columns_of(source) if name in file.schema_arrow.names]
            stop = sum(file.metadata.row_group(i).num_rows for i in range(group + 1))
            for index, batch, i in iter_row_group(file, group, first, stop, columns):
                yield index, arrow_row(batch, i, source, max_bytes)
    except UnreadableRow:
        raise
    except PARQUET_ERRORS as error:
        raise UnreadableRow(f"damaged Parquet data ({one_line(error)})") from error


def cell_value(batch: pa.RecordBatch, column: str, i: int) -> Any:
    """A cell as a Python object, or UnreadableRow: bad UTF-8, a date that Python does not have."""
    try:
        return batch.column(column)[i].as_py()
    except PARQUET_ERRORS as error:
        return UnreadableRow(f"column {column!r} cannot be read ({one_line(error)})")


def repeated_columns(schema: pa.Schema, columns: Iterable[str]) -> list[str]:
    """Those of `columns` that the file has twice, so that it is not known which one is meant."""
    return [name for name in columns if schema.names.count(name) > 1]


def columns_of(source: SourceConfig) -> tuple[str, ...]:
    """Columns that are read where a file has them; the content comes first."""
    return (
        source.content_column,
        source.path_column,
        source.repo_column,
        source.language_column,
        source.license_column,
        source.blob_id_column,
        source.encoding_column,
    )


def check_columns(schema: pa.Schema, source: SourceConfig) -> None:
    """Raise UnreadableRow unless rows can be read: one column of text, none of them twice."""
    if repeated := repeated_columns(schema, columns_of(source)):
        raise UnreadableRow(f"more than one column {repeated[0]!r}")
    # Contents that are fetched one by one are named by the column of blob ids.
    name = source.content_column if source.content_uri is None else source.blob_id_column
    if name not in schema.names:
        raise UnreadableRow(f"no column {name!r}; the columns are {', '.join(schema.names)}")
    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )
    if not is_text:
        raise UnreadableRow(f"column {name!r} holds {kind}, not text")


def arrow_row(
    batch: pa.RecordBatch, i: int, source: SourceConfig, max_bytes: int
) -> dict[str, Any] | ValueError:
    if source.content_uri is not None:
        return _other_columns(batch, i, source)
    content = batch.column(source.content_column)[i]
    if isinstance(content, pa.DictionaryScalar):
        content = content.value
    # Through a buffer: Parquet does not check that its strings are UTF-8.
    buffer = content.as_buffer() if content.is_valid else None
    if buffer is None:
        return UnreadableRow(f"no text in column {source.content_column!r}")
    if buffer.size > max_bytes:
        return OversizedRow(f"{buffer.size} bytes")
    others = _other_columns(batch, i, source)
    if isinstance(others, UnreadableRow):
        return others
    return {**others, "content": buffer.to_pybytes()}


def _other_columns(
    batch: pa.RecordBatch, i: int, source: SourceConfig
) -> dict[str, Any] | UnreadableRow:
    row: dict[str, Any] = {}
    for name in columns_of(source)[1:]:
        if name in batch.schema.names:
            value = cell_value(batch, name, i)
            is_unreadable = isinstance(value, UnreadableRow)
            if is_unreadable and name == source.license_column:
                return value  # must not become the licence that is assumed for the source
            row[name] = None if is_unreadable else value
    return row


def one_line(error: Exception) -> str:
    """An error's message for the detail of a row."""
    text = " ".join(str(error).split())[:200]
    return text.encode("utf-8", "backslashreplace").decode()
