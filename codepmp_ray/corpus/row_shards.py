"""Files of rows: Parquet and JSON lines, cut into pieces of which each becomes one shard.

For stages that read rows of others: threads of `web_pairs`, candidates to be scored. The plan is
made once and stored with the stage, so that a resumed job reads the same pieces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from codepmp_ray.corpus.json_lines import iter_json_lines, json_pieces
from codepmp_ray.corpus.row_files import (
    PARQUET_ERRORS,
    UnreadableRow,
    cell_value,
    iter_row_group,
    one_line,
    repeated_columns,
    require_plain_file,
    row_group_pieces,
)
from codepmp_ray.errors import InputError
from codepmp_ray.storage import Store, is_uri
from codepmp_ray.storage.inputs import (
    InputFile,
    input_file,
    list_remote,
    open_parquet,
)
from codepmp_ray.storage.uris import strip_file_scheme

_SUFFIXES = (".parquet", ".jsonl", ".ndjson")
_MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class RowSource:
    """Where rows lie, and which of their columns are read.

    Attributes:
        setting: the recipe's section that names it, for messages.
        path: a file, a folder of files, or a URI of one of them (s3, gs, abfs, hf, ...).
        columns: read where a file has them.
        required: a file needs one column of each of these groups.
        plan_name: of the file in the stage's folder that holds the plan.
    """

    setting: str
    path: str
    columns: tuple[str, ...]
    required: tuple[tuple[str, ...], ...]
    rows_per_shard: int
    plan_name: str


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


def stored_plan(store: Store, source: RowSource) -> list[Piece]:
    """The stage's pieces, planned now if they were not before.

    Raises InputError when there are no files, none is readable, or one changed since the plan.
    """
    if not store.exists(source.plan_name):
        pieces = plan_pieces(source)
        plan = json.dumps([asdict(piece) for piece in pieces]).encode()
        store.put_exclusive(source.plan_name, plan)
    pieces = [Piece(**item) for item in json.loads(store.read_bytes(source.plan_name))]
    now = {} if not is_uri(source.path) else _remote_stats(source.path)
    for file, size, mtime_ns in {(p.file, p.size, p.mtime_ns) for p in pieces}:
        if (now.get(file) if is_uri(file) else _stat(Path(file))) != (size, mtime_ns):
            raise InputError(
                f"{file} changed since this stage began to read it.",
                f"Put the old file back, or delete {store.uri} to read it anew.",
            )
    return pieces


def read_piece(piece: Piece, source: RowSource) -> Iterator[tuple[int, Any]]:
    """(index, row as a dict or UnreadableRow) for each row of the piece, exactly once."""
    next_index = piece.first
    problem = UnreadableRow(piece.problem or "the file has fewer rows than when it was listed")
    if not piece.problem:
        rows = _parquet_rows if _is_parquet(piece.file) else _json_rows
        try:
            for index, row in rows(piece, source):
                next_index = index + 1
                yield index, row
        except UnreadableRow as error:
            problem = error
    # What the damage leaves unread is accounted for, row by row.
    for index in range(next_index, piece.stop):
        yield index, problem


def plan_pieces(source: RowSource) -> list[Piece]:
    """Every row of the source, once. Raises InputError when there is none that can be read."""
    files = _remote_files(source) if is_uri(source.path) else _local_files(source)
    pieces = [piece for file in files for piece in _pieces(file, source)]
    if not pieces:
        raise InputError(
            f"{source.setting}.path={source.path!r} holds no rows in {', '.join(_SUFFIXES)} files.",
            "Point it at such a file, or at a folder of them.",
        )
    if all(piece.problem for piece in pieces):
        raise InputError(
            f"None of the {len(files)} files of {source.setting} can be read; "
            f"{pieces[0].file}: {pieces[0].problem}.",
            f"Check the files and the column names in {source.setting}.",
        )
    return pieces


def _local_files(source: RowSource) -> list[Piece]:
    """Each file as one piece, not cut yet."""
    path = Path(strip_file_scheme(source.path)).expanduser().absolute()
    if not path.exists():
        raise InputError(
            f"{source.setting}.path={source.path!r} does not exist ({path}).", "Correct the path."
        )
    files = sorted(_walk(path, source), key=os.fsencode) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in _SUFFIXES and not file.name.startswith(".")]
    root = path if path.is_dir() else path.parent
    return [
        Piece(str(file), file.relative_to(root).as_posix(), *_stat(file), 0, 1) for file in files
    ]


def _walk(folder: Path, source: RowSource) -> Iterator[Path]:
    """Everything below `folder` that is no folder; links to folders are not followed."""

    def fail(error: OSError) -> None:
        raise InputError(
            f"The folder {error.filename} of {source.setting} cannot be listed: {error.strerror}.",
            "Make it readable or take it out of the source.",
        ) from error

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names)


def _remote_files(source: RowSource) -> list[Piece]:
    root, listed = list_remote(source.path)
    return [
        Piece(str(root / file.name), file.name, file.size, file.version, 0, 1)
        for file in sorted(listed, key=lambda file: file.name)
        if file.name.endswith(_SUFFIXES) and not file.name.rpartition("/")[2].startswith(".")
    ]


def _remote_stats(uri: str) -> dict[str, tuple[int, int]]:
    root, listed = list_remote(uri)
    return {str(root / file.name): (file.size, file.version) for file in listed}


def _pieces(whole: Piece, source: RowSource) -> list[Piece]:
    file = input_file(whole.file)
    try:
        if _is_parquet(whole.file):
            cuts = _parquet_pieces(file, source)
        else:
            cuts = json_pieces(file, source.rows_per_shard)
    except UnreadableRow as error:
        return [replace(whole, problem=str(error))]
    return [
        replace(whole, first=first, stop=stop, position=position) for first, stop, position in cuts
    ]


def _parquet_pieces(file: InputFile, source: RowSource) -> list[tuple[int, int, int]]:
    require_plain_file(file)
    try:
        with open_parquet(file) as handle:
            _check_columns(handle.schema_arrow, source)
            return row_group_pieces(handle, source.rows_per_shard)
    except UnreadableRow:
        raise
    except PARQUET_ERRORS as error:
        raise UnreadableRow(f"cannot be read ({one_line(error)})") from error


def _check_columns(schema: pa.Schema, source: RowSource) -> None:
    lacking = [" or ".join(group) for group in source.required if not {*group} & {*schema.names}]
    if lacking:
        raise UnreadableRow(f"no column {', '.join(sorted(lacking))}")
    if repeated := repeated_columns(schema, source.columns):
        raise UnreadableRow(f"more than one column {repeated[0]!r}")


def _parquet_rows(piece: Piece, source: RowSource) -> Iterator[tuple[int, Any]]:
    try:
        with open_parquet(input_file(piece.file)) as handle:
            _check_columns(handle.schema_arrow, source)
            names = [name for name in source.columns if name in handle.schema_arrow.names]
            rows = iter_row_group(handle, piece.position, piece.first, piece.stop, names)
            for index, batch, i in rows:
                row = {name: cell_value(batch, name, i) for name in names}
                problems = (value for value in row.values() if isinstance(value, UnreadableRow))
                yield index, next(problems, row)
    except UnreadableRow:
        raise
    except PARQUET_ERRORS as error:
        raise UnreadableRow(f"damaged file ({one_line(error)})") from error


def _json_rows(piece: Piece, source: RowSource) -> Iterator[tuple[int, Any]]:
    span = (piece.first, piece.stop, piece.position)
    for index, row in iter_json_lines(input_file(piece.file), *span, _MAX_LINE_BYTES):
        if isinstance(row, ValueError):
            row = UnreadableRow(one_line(row))
        elif not isinstance(row, dict):
            row = UnreadableRow(f"a {type(row).__name__}, not an object")
        yield index, row


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet")


def _stat(file: Path) -> tuple[int, int]:
    try:
        info = os.stat(file)
    except OSError:
        return 0, 0
    return info.st_size, info.st_mtime_ns
