"""All rows of the files that a setting names, numbered from 0 over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from codepmp_ray.errors import InputError
from codepmp_ray.io.json_lines import all_json_rows
from codepmp_ray.io.listing import FORMATS, Format, data_files, format_of
from codepmp_ray.io.parquet_rows import (
    PARQUET_ERRORS,
    UnreadableRow,
    one_line,
    require_plain_file,
    whole_row,
)
from codepmp_ray.storage.inputs import InputFile, open_binary, open_parquet

Row = dict[str, Any]


def read_rows(setting: str, location: str) -> Iterator[tuple[int, Row | UnreadableRow]]:
    """(number, row or what is wrong with it). Blank lines have a number and are left out.

    Args:
        setting: what names the location, for messages.
        location: a file, or a folder of files, at a path or URI.

    Raises InputError where nothing is, or a file cannot be read at all.
    """
    first = 0
    for file in data_files(setting, location):
        number = first - 1
        try:
            for index, row in _file_rows(file):
                number = first + index
                yield number, row
        except UnreadableRow as error:
            raise InputError(
                f"{setting}={location}: {file} cannot be read: {error}.",
                f"Name a file of {FORMATS}, or a folder of such files.",
            ) from error
        first = number + 1


def read_whole(setting: str, location: str) -> Iterator[Row]:
    """The rows of a set that is of no use with holes. Raises InputError for the first bad one."""
    for number, row in read_rows(setting, location):
        if isinstance(row, UnreadableRow):
            raise InputError(
                f"{setting}={location} cannot be read: row {number + 1}: {row}.",
                f"Name a file of {FORMATS}; in a cluster on storage that every node sees.",
            )
        yield row


def _file_rows(file: InputFile) -> Iterator[tuple[int, Row | UnreadableRow]]:
    require_plain_file(file)
    if (format_of(str(file)) or _sniffed(file)) == "parquet":
        yield from _parquet_rows(file)
        return
    for index, row in all_json_rows(file):
        if isinstance(row, ValueError):
            row = UnreadableRow(one_line(row))
        elif not isinstance(row, dict):
            row = UnreadableRow(f"holds {type(row).__name__}, not an object")
        yield index, row


def _parquet_rows(file: InputFile) -> Iterator[tuple[int, Row | UnreadableRow]]:
    index = 0
    try:
        with open_parquet(file) as parquet:
            for batch in parquet.iter_batches(1024):
                for row in _batch_rows(batch):
                    yield index, row
                    index += 1
    except PARQUET_ERRORS as error:
        raise UnreadableRow(f"not readable Parquet ({one_line(error)})") from error


def _batch_rows(batch: pa.RecordBatch) -> list[Row] | list[Row | UnreadableRow]:
    try:
        return batch.to_pylist()
    except PARQUET_ERRORS:  # of one cell, say
        return [whole_row(batch, i, batch.schema.names) for i in range(batch.num_rows)]


def _sniffed(file: InputFile) -> Format:
    """Of a file whose name says nothing."""
    with suppress(OSError), open_binary(file) as handle:
        return "parquet" if handle.read(4) == b"PAR1" else "lines"
    return "lines"
