"""Files of JSON lines: cut into pieces without parsing them, and read.

Every line is a row, blank ones too. Lines are counted in parts of a file, so that many can be
counted at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.corpus.row_files import (
    OversizedRow,
    UnreadableRow,
    columns_of,
    one_line,
    require_plain_file,
)
from codepmp_ray.storage.inputs import InputFile, open_binary

LINE_PART_BYTES = 64 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
# A JSON string spends at most six bytes ("\\u0000") on one byte of content.
_JSON_BYTES_PER_BYTE = 6
_JSON_OTHER_BYTES = 65_536


def json_pieces(path: InputFile, rows: int) -> list[tuple[int, int, int]]:
    """(first line, line after the last, byte offset) of each piece of at most `rows` lines.

    Raises UnreadableRow when the file cannot be read.
    """
    pieces, index, start = [], 0, 0
    while (part := json_part(path, rows, start, start + LINE_PART_BYTES)) is not None:
        num_lines, cuts = part
        pieces += [(index + first, index + stop, offset) for first, stop, offset in cuts]
        index, start = index + num_lines, start + LINE_PART_BYTES
    return pieces


def json_part(
    path: InputFile, rows: int, start: int, stop: int
) -> tuple[int, list[tuple[int, int, int]]] | None:
    """(number of lines, pieces) of the lines that begin in the bytes [start, stop) of a file; None
    behind its end. Pieces as of `json_pieces`, counted from the part's first line.

    Raises UnreadableRow when the file cannot be read or is compressed.
    """
    require_plain_file(path)
    try:
        with open_binary(path) as handle:
            if kind := _compression(handle):
                raise UnreadableRow(f"compressed ({kind}): unpack it, or convert it to Parquet")
            begins = _line_starts(handle, start, stop)
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error
    if begins is None:
        return None
    firsts = range(0, len(begins), rows)
    cuts = [(i, min(i + rows, len(begins)), int(begins[i])) for i in firsts]
    return len(begins), cuts


def _compression(handle: BinaryIO) -> str:
    magic = handle.read(8)
    return next((name for mark, name in _COMPRESSED.items() if magic.startswith(mark)), "")


def _line_starts(handle: BinaryIO, start: int, stop: int) -> np.ndarray | None:
    """Offsets in [start, stop) at which lines begin; None behind the end of the file."""
    found = [np.zeros(1 if start == 0 else 0, dtype=np.int64)]
    # A newline at the byte before a place makes it the beginning of a line.
    position = max(start - 1, 0)
    handle.seek(position)
    while position < stop - 1 and (block := handle.read(min(1 << 20, stop - 1 - position))):
        newlines = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 0x0A)
        found.append(newlines.astype(np.int64) + position + 1)
        position += len(block)
    is_end = not handle.read(1)
    begins = np.concatenate(found)
    if is_end and position <= start:  # nothing of the part is there
        return None
    # What begins at the end of the file is no line.
    return begins[begins < position] if is_end else begins


def read_json_piece(
    path: InputFile, source: SourceConfig, first: int, stop: int, offset: int, max_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """As `read_parquet_piece`, for lines; a line over the limit is never held in memory whole."""
    limit = max_bytes * _JSON_BYTES_PER_BYTE + _JSON_OTHER_BYTES
    for index, row in iter_json_lines(path, first, stop, offset, limit):
        is_error = isinstance(row, ValueError)
        yield index, row if is_error else _json_row(row, source, max_bytes)


def iter_json_lines(
    path: InputFile, first: int, stop: int, offset: int, limit: int
) -> Iterator[tuple[int, Any]]:
    """(index, value or what is wrong with the line) of the lines [first, stop) from `offset` on.

    A line over `limit` bytes is an OversizedRow and never held in memory whole. Raises
    UnreadableRow when the file cannot be read.
    """
    try:
        with open_binary(path) as handle:
            handle.seek(offset)
            lines = _iter_lines(handle, limit)
            for index, (num_bytes, line) in zip(range(first, stop), lines, strict=False):
                if line is None:
                    yield index, OversizedRow(f"a line of {num_bytes} bytes")
                else:
                    yield index, _parse_json(line)
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error


def _parse_json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        return error
    except (ValueError, RecursionError) as error:
        return UnreadableRow(f"not a JSON line ({one_line(error)})")


def _json_row(row: Any, source: SourceConfig, max_bytes: int) -> dict[str, Any] | ValueError:
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


def _iter_lines(handle: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(bytes, line) from the current position on; None for a line over `limit` bytes."""
    while line := handle.readline(limit):
        num_bytes, is_whole, part = len(line), True, line
        # The file's last line may have no newline.
        while not part.endswith(b"\n") and (part := handle.readline(limit)):
            num_bytes, is_whole = num_bytes + len(part), False
        yield num_bytes, line if is_whole else None
