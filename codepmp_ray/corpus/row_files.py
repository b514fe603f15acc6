"""Data files whose rows are code files: what their columns mean."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pyarrow as pa

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.io.continued import Continued
from codepmp_ray.io.json_lines import iter_json_lines
from codepmp_ray.io.nested import nested_row, nested_schema
from codepmp_ray.io.parquet_rows import (
    PARQUET_ERRORS,
    OversizedRow,
    UnreadableRow,
    cell_value,
    iter_row_group,
    one_line,
    repeated_columns,
    require_plain_file,
    row_group_pieces,
)
from codepmp_ray.storage.inputs import InputFile, open_parquet

# A piece is what one task commits; smaller ones would cost more markers than work.
_MIN_PARQUET_PIECE_ROWS = 2_000
# A JSON string spends at most six bytes ("\\u0000") on one byte of content.
_JSON_BYTES_PER_BYTE = 6
_JSON_OTHER_BYTES = 65_536


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


def read_parquet_piece(
    path: InputFile, source: SourceConfig, first: int, stop: int, group: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """(index, row or what is wrong with it) for each row of a piece.

    A row maps configured column names to values; the content is bytes, and is not turned into a
    Python object when it is over `max_bytes`. Raises UnreadableRow when the file is damaged.

    A piece by itself costs its whole row group, which may be as large as the file; one that goes on
    where the last one of this process ended reads nothing again.
    """
    yield from _open.rows(
        (str(path), source, group, max_bytes),
        first,
        stop,
        lambda: _group_rows(path, source, first, group, max_bytes),
    )


def read_json_piece(
    path: InputFile, source: SourceConfig, first: int, stop: int, position: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """As `read_parquet_piece`, for lines; a line over the limit is never held in memory whole."""
    limit = max_bytes * _JSON_BYTES_PER_BYTE + _JSON_OTHER_BYTES
    for index, row in iter_json_lines(path, first, stop, position, limit):
        is_error = isinstance(row, ValueError)
        yield index, row if is_error else _json_row(row, source, max_bytes)


def _json_row(row: Any, source: SourceConfig, max_bytes: int) -> dict[str, Any] | ValueError:
    if isinstance(row, dict):
        row = nested_row(row, columns_of(source))
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


_open = Continued()


def _group_rows(
    path: InputFile, source: SourceConfig, first: int, group: int, max_bytes: int
) -> Generator[tuple[int, dict[str, Any] | ValueError], None, None]:
    try:
        with open_parquet(path) as file:
            check_columns(file.schema_arrow, source)
            found = nested_schema(file.schema_arrow, columns_of(source)).names
            columns = [name for name in columns_of(source) if name in found]
            stop = sum(file.metadata.row_group(i).num_rows for i in range(group + 1))
            for index, batch, i in iter_row_group(file, group, first, stop, columns):
                yield index, arrow_row(batch, i, source, max_bytes)
    except UnreadableRow:
        raise
    except PARQUET_ERRORS as error:
        raise UnreadableRow(f"damaged Parquet data ({one_line(error)})") from error


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
    found = nested_schema(schema, [name])
    if name not in found.names:
        raise UnreadableRow(f"no column {name!r}; the columns are {', '.join(schema.names)}")
    kind = found.field(name).type
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
