"""Data files whose rows are code files: Parquet and JSON lines.

A row's index is its position in its file, from 0; of JSON lines every line is a row, blank ones
too. Files are cut into pieces that can be read without reading what comes before them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.storage.inputs import InputFile, open_binary, open_parquet

# Reading a piece reads its whole row group, so pieces of a large one must not be small.
_MIN_PARQUET_PIECE_ROWS = 2_000
# A JSON string spends at most six bytes ("\\u0000") on one byte of content.
_JSON_BYTES_PER_BYTE = 6
_JSON_OTHER_BYTES = 65_536


class UnreadableRow(ValueError):
    """A row, or the file around it, is damaged; the message says how."""


class OversizedRow(ValueError):
    """A row's content is over the limit."""


def parquet_pieces(path: InputFile, source: SourceConfig, rows: int) -> list[tuple[int, int, int]]:
    """(first row, row after the last, row group) of each piece of about `rows` rows.

    Raises UnreadableRow when the file is not Parquet or has no text in the content column.
    """
    try:
        with open_parquet(path) as file:
            check_content_column(file.schema_arrow, source)
            sizes = [
                file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)
            ]
    except (pa.ArrowException, OSError) as error:
        raise UnreadableRow(f"not a readable Parquet file ({_one_line(error)})") from error
    step = max(rows, _MIN_PARQUET_PIECE_ROWS)
    pieces, first = [], 0
    for group, size in enumerate(sizes):
        for start in range(0, size, step):
            pieces.append((first + start, first + min(start + step, size), group))
        first += size
    return pieces


def read_parquet_piece(
    path: InputFile, source: SourceConfig, first: int, stop: int, group: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """(index, row or what is wrong with it) for each row of a piece.

    A row maps configured column names to values; the content is bytes, and is not turned into a
    Python object when it is over `max_bytes`. Raises UnreadableRow when the file is damaged.
    """
    try:
        with open_parquet(path) as file:
            check_content_column(file.schema_arrow, source)
            columns = [name for name in columns_of(source) if name in file.schema_arrow.names]
            index = sum(file.metadata.row_group(i).num_rows for i in range(group))
            for batch in file.iter_batches(64, row_groups=[group], columns=columns):
                start, end = max(first - index, 0), min(stop - index, batch.num_rows)
                for i in range(start, end):
                    yield index + i, arrow_row(batch, i, source, max_bytes)
                index += batch.num_rows
                if index >= stop:
                    return
    except (pa.ArrowException, OSError) as error:
        raise UnreadableRow(f"damaged Parquet data ({_one_line(error)})") from error


def json_pieces(path: InputFile, rows: int) -> list[tuple[int, int, int]]:
    """(first line, line after the last, byte offset) of each piece of `rows` lines."""
    pieces, index, offset, first, first_offset = [], 0, 0, 0, 0
    try:
        with open_binary(path) as handle:
            for line_bytes, _ in _lines(handle, _JSON_OTHER_BYTES):
                index, offset = index + 1, offset + line_bytes
                if index - first == rows:
                    pieces.append((first, index, first_offset))
                    first, first_offset = index, offset
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error
    if index > first:
        pieces.append((first, index, first_offset))
    return pieces


def read_json_piece(
    path: InputFile, source: SourceConfig, first: int, stop: int, offset: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """As `read_parquet_piece`, for lines; a line over the limit is never held in memory whole."""
    limit = max_bytes * _JSON_BYTES_PER_BYTE + _JSON_OTHER_BYTES
    try:
        with open_binary(path) as handle:
            handle.seek(offset)
            for index, (line_bytes, line) in zip(
                range(first, stop), _lines(handle, limit), strict=False
            ):
                if line is None:
                    yield index, OversizedRow(f"a line of {line_bytes} bytes")
                else:
                    yield index, _json_row(line, source, max_bytes)
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error


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


def check_content_column(schema: pa.Schema, source: SourceConfig) -> None:
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
    return {**_other_columns(batch, i, source), "content": buffer.to_pybytes()}


def _other_columns(batch: pa.RecordBatch, i: int, source: SourceConfig) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in columns_of(source)[1:]:
        if name in batch.schema.names:
            try:
                row[name] = batch.column(name)[i].as_py()
            except UnicodeDecodeError:
                row[name] = None
    return row


def _json_row(line: bytes, source: SourceConfig, max_bytes: int) -> dict[str, Any] | ValueError:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        return error
    except (ValueError, RecursionError) as error:
        return UnreadableRow(f"not a JSON line ({_one_line(error)})")
    if isinstance(row, dict) and source.content_uri is not None:
        return {name: row.get(name) for name in columns_of(source)[1:]}
    content = row.get(source.content_column) if isinstance(row, dict) else None
    if not isinstance(content, str):
        return UnreadableRow(f"no text in {source.content_column!r}")
    # JSON can spell half of a surrogate pair; it has no UTF-8 form and fails its check later.
    data = content.encode("utf-8", "surrogatepass")
    if len(data) > max_bytes:
        return OversizedRow(f"{len(data)} bytes")
    return {**{name: row.get(name) for name in columns_of(source)[1:]}, "content": data}


def _lines(handle: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(bytes, line) from the current position on; None for a line over `limit` bytes."""
    while line := handle.readline(limit):
        num_bytes, end = len(line), line
        # A file's last line need not end with a line feed.
        while not end.endswith(b"\n") and (more := handle.readline(limit)):
            num_bytes, end = num_bytes + len(more), more
        yield num_bytes, line if end is line else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
