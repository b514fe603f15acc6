"""Contents that a data set stores apart: rows name a blob, and its bytes are one object each.

The Stack v2 is such: ids in Parquet, contents at s3://softwareheritage/content/<blob_id>, gzipped,
in the encoding that the row names. A blob that is missing or damaged is that row's affair; a store
that does not answer ends the job, which resumes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.errors import StorageError
from codepmp_ray.io.parquet_rows import OversizedRow, UnreadableRow
from codepmp_ray.storage.base import map_in_parallel
from codepmp_ray.storage.inputs import input_file
from codepmp_ray.storage.remote_files import is_missing

_NUM_PARALLEL = 32
_GZIP = b"\x1f\x8b"
_BLOB_ID = re.compile(r"^[\w.-]+$")

Row = dict[str, Any] | ValueError


def with_contents(
    rows: Iterator[tuple[int, Row]], source: SourceConfig, max_bytes: int
) -> Iterator[tuple[int, Row]]:
    """The rows with their `content` (UTF-8 bytes), or with what is wrong with it instead."""
    yield from map_in_parallel(partial(_fetched, source, max_bytes), rows, _NUM_PARALLEL)


def _fetched(source: SourceConfig, max_bytes: int, item: tuple[int, Row]) -> tuple[int, Row]:
    index, row = item
    if isinstance(row, ValueError):
        return index, row
    try:
        return index, {**row, "content": _content(row, source, max_bytes)}
    except ValueError as error:
        return index, error


def _content(row: dict[str, Any], source: SourceConfig, max_bytes: int) -> bytes:
    blob_id = row.get(source.blob_id_column)
    if not isinstance(blob_id, str) or not _BLOB_ID.match(blob_id):
        raise UnreadableRow(f"no blob id in column {source.blob_id_column!r}")
    data = _unpacked(_read((source.content_uri or "").replace("{blob_id}", blob_id)), max_bytes)
    encoding = row.get(source.encoding_column) or "utf-8"
    try:
        return data if encoding.lower() in ("utf-8", "ascii") else data.decode(encoding).encode()
    except (LookupError, UnicodeError) as error:
        raise UnreadableRow(f"not valid {encoding} ({' '.join(str(error).split())})") from error


def _read(location: str) -> bytes:
    file = input_file(location)
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableRow(f"{location} is not there") from error
    except StorageError as error:
        if error.__cause__ is not None and is_missing(error.__cause__):
            raise UnreadableRow(f"{location} is not there") from error
        raise


def _unpacked(data: bytes, max_bytes: int) -> bytes:
    """`data`, unzipped if it is gzip; no more than a byte over the limit is unzipped."""
    if data.startswith(_GZIP):
        unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            data = unzip.decompress(data, max_bytes + 1)
        except zlib.error as error:
            raise UnreadableRow(f"damaged gzip data ({error})") from error
        if len(data) <= max_bytes and not unzip.eof:
            raise UnreadableRow("damaged gzip data (cut short)")
    if len(data) > max_bytes:
        raise OversizedRow(f"more than {max_bytes} bytes")
    return data
