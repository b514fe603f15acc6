"""Files of threads: Parquet and JSON lines, cut into pieces of which each becomes one shard.

A thread is one row with a question and its answers. The plan is made once and stored with the
stage, so that a resumed job reads the same pieces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from codepmp_ray.config.synthesis import ThreadsConfig
from codepmp_ray.errors import InputError
from codepmp_ray.storage import Store, is_uri
from codepmp_ray.storage.inputs import (
    InputFile,
    input_file,
    list_remote,
    open_binary,
    open_parquet,
)
from codepmp_ray.storage.uris import strip_file_scheme

_PLAN = "threads.json"
_SUFFIXES = (".parquet", ".jsonl", ".ndjson")
_MAX_LINE_BYTES = 16 << 20


class BadThread(ValueError):
    """A row cannot be read; the message says why."""


@dataclass(frozen=True)
class Piece:
    """Rows [first, stop) of one file, `name` in the source.

    `position` is the row group of Parquet, or the byte offset of lines. `problem` says why the file
    cannot be read; it then counts as one row.
    """

    file: str
    name: str
    size: int
    mtime_ns: int
    first: int
    stop: int
    position: int = 0
    problem: str = ""


def stored_plan(store: Store, threads: ThreadsConfig) -> list[Piece]:
    """The stage's pieces, planned now if they were not before.

    Raises InputError when there are no files, none is readable, or one changed since the plan.
    """
    if not store.exists(_PLAN):
        pieces = _plan(threads)
        store.put_exclusive(_PLAN, json.dumps([asdict(piece) for piece in pieces]).encode())
    pieces = [Piece(**item) for item in json.loads(store.read_bytes(_PLAN))]
    now = {} if not is_uri(threads.path or "") else _remote_stats(threads.path or "")
    for file, size, mtime_ns in {(p.file, p.size, p.mtime_ns) for p in pieces}:
        if (now.get(file) if is_uri(file) else _stat(Path(file))) != (size, mtime_ns):
            raise InputError(
                f"{file} changed since this stage began to read it.",
                f"Put the old file back, or delete {store.uri} to make its pairs anew.",
            )
    return pieces


def read_piece(piece: Piece, threads: ThreadsConfig) -> Iterator[tuple[int, Any]]:
    """(index, row as a dict or BadThread) for each row of the piece, exactly once."""
    if piece.problem:
        yield piece.first, BadThread(piece.problem)
        return
    index = piece.first
    rows = _parquet_rows(piece, threads) if _is_parquet(piece.file) else _json_rows(piece)
    try:
        for row in rows:
            yield index, row
            index += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # What the damage leaves unread is accounted for, row by row.
        for rest in range(index, piece.stop):
            yield rest, BadThread(f"damaged file ({_one_line(error)})")


def _plan(threads: ThreadsConfig) -> list[Piece]:
    files = _remote_files(threads) if is_uri(threads.path or "") else _local_files(threads)
    pieces = [piece for file in files for piece in _pieces(file, threads)]
    if not pieces:
        raise InputError(
            f"synthesis.threads.path={threads.path!r} holds no rows in {', '.join(_SUFFIXES)} "
            "files.",
            "Point it at a file or a folder of threads.",
        )
    if all(piece.problem for piece in pieces):
        raise InputError(
            f"None of the {len(files)} files of synthesis.threads can be read; "
            f"{pieces[0].file}: {pieces[0].problem}.",
            "Check the files and the column names in synthesis.threads.",
        )
    return pieces


def _local_files(threads: ThreadsConfig) -> list[Piece]:
    """Each file as one piece, not cut yet."""
    path = Path(strip_file_scheme(threads.path or "")).expanduser().absolute()
    if not path.exists():
        raise InputError(
            f"synthesis.threads.path={threads.path!r} does not exist ({path}).", "Correct the path."
        )
    files = sorted(path.rglob("*"), key=os.fsencode) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in _SUFFIXES and not file.name.startswith(".")]
    root = path if path.is_dir() else path.parent
    return [
        Piece(str(file), file.relative_to(root).as_posix(), *_stat(file), 0, 1) for file in files
    ]


def _remote_files(threads: ThreadsConfig) -> list[Piece]:
    root, listed = list_remote(threads.path or "")
    return [
        Piece(str(root / file.name), file.name, file.size, file.version, 0, 1)
        for file in sorted(listed, key=lambda file: file.name)
        if file.name.endswith(_SUFFIXES) and not file.name.rpartition("/")[2].startswith(".")
    ]


def _remote_stats(uri: str) -> dict[str, tuple[int, int]]:
    root, listed = list_remote(uri)
    return {str(root / file.name): (file.size, file.version) for file in listed}


def _pieces(whole: Piece, threads: ThreadsConfig) -> list[Piece]:
    file = input_file(whole.file)
    try:
        is_parquet = _is_parquet(whole.file)
        cuts = _parquet_cuts(file, threads) if is_parquet else _json_cuts(file, threads)
    except (pa.ArrowException, OSError, BadThread) as error:
        return [replace(whole, problem=f"cannot be read ({_one_line(error)})")]
    return [
        replace(whole, first=first, stop=stop, position=position) for first, stop, position in cuts
    ]


def _parquet_cuts(file: InputFile, threads: ThreadsConfig) -> list[tuple[int, int, int]]:
    cuts, first = [], 0
    with open_parquet(file) as handle:
        if lacking := {threads.question_column, threads.answers_column} - set(
            handle.schema_arrow.names
        ):
            raise BadThread(f"no column {', '.join(sorted(lacking))}")
        for group in range(handle.num_row_groups):
            stop = first + handle.metadata.row_group(group).num_rows
            for start in range(first, stop, threads.rows_per_shard):
                cuts.append((start, min(start + threads.rows_per_shard, stop), group))
            first = stop
    return cuts


def _json_cuts(file: InputFile, threads: ThreadsConfig) -> list[tuple[int, int, int]]:
    cuts, start, offset, index, position = [], 0, 0, 0, 0
    with open_binary(file) as handle:
        for num_bytes, _ in _lines(handle):
            index, position = index + 1, position + num_bytes
            if index - start == threads.rows_per_shard:
                cuts.append((start, index, offset))
                start, offset = index, position
    return [*cuts, (start, index, offset)] if index > start else cuts


def _parquet_rows(piece: Piece, threads: ThreadsConfig) -> Iterator[Any]:
    with open_parquet(input_file(piece.file)) as handle:
        group_first = sum(handle.metadata.row_group(i).num_rows for i in range(piece.position))
        names = [name for name in threads.columns() if name in handle.schema_arrow.names]
        index = group_first
        for batch in handle.iter_batches(256, row_groups=[piece.position], columns=names):
            for i in range(batch.num_rows):
                if piece.first <= index < piece.stop:
                    yield {name: batch.column(name)[i].as_py() for name in names}
                index += 1
            if index >= piece.stop:
                return


def _json_rows(piece: Piece) -> Iterator[Any]:
    with open_binary(input_file(piece.file)) as handle:
        handle.seek(piece.position)
        for _, (num_bytes, line) in zip(
            range(piece.first, piece.stop), _lines(handle), strict=False
        ):
            yield _json_row(num_bytes, line)


def _json_row(num_bytes: int, line: bytes | None) -> Any:
    if line is None:
        return BadThread(f"a line of {num_bytes} bytes, at most {_MAX_LINE_BYTES}")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadThread(f"not a JSON line ({_one_line(error)})")
    return row if isinstance(row, dict) else BadThread(f"a {type(row).__name__}, not an object")


def _lines(handle: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(bytes, line); None for a line that is too long to be held in memory."""
    while line := handle.readline(_MAX_LINE_BYTES):
        num_bytes, end = len(line), line
        # A file's last line need not end with a line feed.
        while not end.endswith(b"\n") and (more := handle.readline(_MAX_LINE_BYTES)):
            num_bytes, end = num_bytes + len(more), more
        yield num_bytes, line if end is line else None


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet")


def _stat(file: Path) -> tuple[int, int]:
    try:
        info = os.stat(file)
    except OSError:
        return 0, 0
    return info.st_size, info.st_mtime_ns


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
