"""Rows of Parquet: pieces of row groups, cells that may be damaged, and what is wrong with a row.

A row's index is its position in its file, from 0.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.io.nested import nested_batch
from codepmp_ray.storage.inputs import InputFile

# What pyarrow raises for a damaged file: names that are not UTF-8 and sizes beyond any number too.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, LookupError)


class UnreadableRow(ValueError):
    """A row, or the file around it, is damaged; the message says how."""


class OversizedRow(ValueError):
    """A row's content is over the limit."""


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
    file: pq.ParquetFile, group: int, first: int, stop: int, columns: list[str] | None
) -> Iterator[tuple[int, pa.RecordBatch, int]]:
    """(index, batch, position in the batch) of the rows [first, stop), which lie in `group`.

    `columns` are read and are the batch's, also those inside of others; or all are.
    """
    index = sum(file.metadata.row_group(i).num_rows for i in range(group))
    for batch in file.iter_batches(64, row_groups=[group], columns=columns):
        batch = nested_batch(batch, columns or ())
        for i in range(max(first - index, 0), min(stop - index, batch.num_rows)):
            yield index + i, batch, i
        index += batch.num_rows
        if index >= stop:
            return


def whole_row(
    batch: pa.RecordBatch, i: int, names: Iterable[str]
) -> dict[str, Any] | UnreadableRow:
    """The row's cells by column, or the first that cannot be read."""
    row = {name: cell_value(batch, name, i) for name in names}
    return next((value for value in row.values() if isinstance(value, UnreadableRow)), row)


def cell_value(batch: pa.RecordBatch, column: str, i: int) -> Any:
    """A cell as a Python object, or UnreadableRow: bad UTF-8, a date that Python does not have."""
    try:
        return batch.column(column)[i].as_py()
    except PARQUET_ERRORS as error:
        return UnreadableRow(f"column {column!r} cannot be read ({one_line(error)})")


def repeated_columns(schema: pa.Schema, columns: Iterable[str]) -> list[str]:
    """Those of `columns` that the file has twice, so that it is not known which one is meant."""
    return [name for name in columns if schema.names.count(name) > 1]


def one_line(error: BaseException) -> str:
    """An error's message for the detail of a row."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200].encode("utf-8", "backslashreplace").decode()
