"""JSON lines and JSON arrays: cut into pieces, and read. Either may be compressed.

Every line is a row, blank ones too; of an array every element. Lines of a plain file are counted in
parts, so that many can be counted at once. Rows of a compressed file, or of an array, are reached
from its beginning only (position FROM_START): a piece that goes on where the last one of this
process ended reads nothing again.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from codepmp_ray.io.continued import Continued
from codepmp_ray.io.listing import is_compressed
from codepmp_ray.io.parquet_rows import OversizedRow, UnreadableRow, one_line, require_plain_file
from codepmp_ray.storage.inputs import InputFile, open_binary

LINE_PART_BYTES = 64 << 20
FROM_START = -1
_MAGIC = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2", b"\xfd7zXZ": "xz"}
_ARROW_NAMES = {"gz": "gzip", "zst": "zstd", "bz2": "bz2"}
_BLANK = b" \t\r\n\xef\xbb\xbf"  # and a byte order mark
_BUFFER_BYTES = 1 << 20
_open = Continued()
_DAMAGE = (OSError, EOFError, lzma.LZMAError, pa.ArrowException)


def json_pieces(path: InputFile, rows: int) -> list[tuple[int, int, int]]:
    """(first row, row after the last, position) of each piece of at most `rows` rows.

    The position is a byte offset or FROM_START. Raises UnreadableRow when the file cannot be read.
    """
    require_plain_file(path)
    if _is_sequential(path):
        num_rows = sum(1 for _ in _sequential(path, None))
        return [(i, min(i + rows, num_rows), FROM_START) for i in range(0, num_rows, rows)]
    pieces, index, start = [], 0, 0
    while (part := json_part(path, rows, start, start + LINE_PART_BYTES)) is not None:
        num_lines, cuts = part
        pieces += [(index + first, index + stop, offset) for first, stop, offset in cuts]
        index, start = index + num_lines, start + LINE_PART_BYTES
    return pieces


def json_part(
    path: InputFile, rows: int, start: int, stop: int
) -> tuple[int, list[tuple[int, int, int]]] | None:
    """(number of lines, pieces) of the lines that begin in the bytes [start, stop) of a plain file
    of lines; None behind its end. Pieces as of `json_pieces`, counted from the part's first line.

    Raises UnreadableRow when the file cannot be read, or its name does not say what it is.
    """
    require_plain_file(path)
    try:
        with open_binary(path) as handle:
            if start == 0 and (kind := _kind(handle)):
                end = "json" if kind == "array" else kind
                raise UnreadableRow(f"not plain lines ({kind}): end its name in .{end}")
            begins = _line_starts(handle, start, stop)
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error
    if begins is None:
        return None
    firsts = range(0, len(begins), rows)
    cuts = [(i, min(i + rows, len(begins)), int(begins[i])) for i in firsts]
    return len(begins), cuts


def iter_json_lines(
    path: InputFile, first: int, stop: int, position: int, limit: int | None
) -> Iterator[tuple[int, Any]]:
    """(index, value or what is wrong with it) of the rows [first, stop) of a piece.

    A line over `limit` bytes is an OversizedRow and never held in memory whole; an array is. Raises
    UnreadableRow when the file cannot be read.
    """
    if position == FROM_START:
        rows = _open.rows((str(path), limit), first, stop, lambda: _numbered(path, limit))
        yield from ((index, _value(line)) for index, line in rows)
        return
    try:
        with open_binary(path) as handle:
            handle.seek(position)
            for index, line in zip(range(first, stop), _iter_lines(handle, limit), strict=False):
                yield index, _value(line)
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error


def all_json_rows(path: InputFile) -> Iterator[tuple[int, Any]]:
    """As `iter_json_lines`, for the whole file, blank lines counted and left out."""
    require_plain_file(path)
    for index, line in enumerate(_sequential(path, None)):
        if not isinstance(line, bytes) or line.strip(_BLANK):
            yield index, _value(line)


def _is_sequential(path: InputFile) -> bool:
    try:
        with open_binary(path) as handle:
            return is_compressed(str(path)) or bool(_kind(handle))
    except OSError as error:
        raise UnreadableRow(f"cannot be read ({error.strerror})") from error


def _kind(handle: BinaryIO) -> str:
    """What it is compressed with, "array", or "" for plain lines; from its first bytes."""
    begin = handle.read(64)
    handle.seek(0)
    kind = next((name for mark, name in _MAGIC.items() if begin.startswith(mark)), "")
    return kind or ("array" if begin.lstrip(_BLANK)[:1] == b"[" else "")


Line = bytes | OversizedRow | list[Any]


def _numbered(path: InputFile, limit: int | None) -> Generator[tuple[int, Line], None, None]:
    yield from enumerate(_sequential(path, limit))


def _sequential(path: InputFile, limit: int | None) -> Iterator[Line]:
    """All lines, as bytes or OversizedRow; of an array its elements, as lists of one."""
    try:
        with open_binary(path) as raw, _unpacked(raw, str(path)) as lines:
            if lines.peek(64).lstrip(_BLANK)[:1] == b"[":
                yield from ([element] for element in _array(lines))
            else:
                yield from _iter_lines(lines, limit)
    except _DAMAGE as error:
        raise UnreadableRow(f"cannot be read ({one_line(error)})") from error


@contextmanager
def _unpacked(raw: BinaryIO, name: str) -> Iterator[io.BufferedReader]:
    kind = _kind(raw)
    if is_compressed(name) and kind not in _MAGIC.values():
        raise UnreadableRow("not compressed, as its name says that it is")
    if kind == "xz":
        with lzma.open(raw) as unpacked:
            yield io.BufferedReader(unpacked, _BUFFER_BYTES)
        return
    with pa.input_stream(raw, compression=_ARROW_NAMES.get(kind)) as stream:
        yield io.BufferedReader(cast(Any, stream), _BUFFER_BYTES)


def _array(stream: BinaryIO) -> list[Any]:
    try:
        return json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableRow(f"not a JSON array ({one_line(error)})") from error


def _value(line: Line) -> Any:
    if not isinstance(line, bytes):
        return line[0] if isinstance(line, list) else line
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        return error
    except (ValueError, RecursionError) as error:
        return UnreadableRow(f"not a JSON line ({one_line(error)})")


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


def _iter_lines(handle: BinaryIO, limit: int | None) -> Iterator[bytes | OversizedRow]:
    """Lines from the current position on; OversizedRow for one over `limit` bytes."""
    size = -1 if limit is None else limit
    while line := handle.readline(size):
        num_bytes, is_whole, part = len(line), True, line
        # The file's last line may have no newline.
        while limit and not part.endswith(b"\n") and (part := handle.readline(size)):
            num_bytes, is_whole = num_bytes + len(part), False
        yield line if is_whole else OversizedRow(f"a line of {num_bytes} bytes")
