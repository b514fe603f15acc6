"""Files of rows: Parquet and JSON lines, cut into pieces of which each becomes one shard.

For stages that read rows of others: threads of `web_pairs`, candidates to be scored. The plan is
made once and stored with the stage, so that a resumed job reads the same pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from codepmp_ray.errors import InputError
from codepmp_ray.io.json_lines import iter_json_lines, json_pieces
from codepmp_ray.io.listing import FORMATS, format_of, list_rows
from codepmp_ray.io.nested import nested_row, nested_schema
from codepmp_ray.io.parquet_rows import (
    PARQUET_ERRORS,
    UnreadableRow,
    iter_row_group,
    one_line,
    repeated_columns,
    require_plain_file,
    row_group_pieces,
    whole_row,
)
from codepmp_ray.storage import Store
from codepmp_ray.storage.inputs import InputFile, input_file, open_parquet

_MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class RowSource:
    """Where rows lie, and which of their columns are read.

    Attributes:
        setting: the recipe's section that names it, for messages.
        path: a file, a folder of files, or a URI of one of them (s3, gs, abfs, hf, ...).
        columns: read where a file has them; `a.b` is the field b of the column a.
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

    `position` is the row group of Parquet, or what `json_pieces` gives. `problem` says why the file
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
    now = {piece.file: (piece.size, piece.mtime_ns) for piece in _whole_files(source)}
    for file, size, mtime_ns in {(p.file, p.size, p.mtime_ns) for p in pieces}:
        if now.get(file) != (size, mtime_ns):
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
        is_parquet = format_of(piece.file) == "parquet"
        rows = _parquet_rows if is_parquet else _json_rows
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
    files = _whole_files(source)
    pieces = [piece for file in files for piece in _pieces(file, source)]
    if not pieces:
        raise InputError(
            f"{source.setting}.path={source.path} holds no rows in files of {FORMATS}.",
            "Point it at such a file, or at a folder of them.",
        )
    if all(piece.problem for piece in pieces):
        raise InputError(
            f"None of the {len(files)} files of {source.setting} can be read; "
            f"{pieces[0].file}: {pieces[0].problem}.",
            f"Check the files and the column names in {source.setting}.",
        )
    return pieces


def _whole_files(source: RowSource) -> list[Piece]:
    """Each file as one piece, not cut yet."""
    listing = list_rows(f"{source.setting}.path", source.path)
    return [
        Piece(str(listing.root / file.name), file.name, file.size, file.version, 0, 1)
        for file in listing.files
    ]


def _pieces(whole: Piece, source: RowSource) -> list[Piece]:
    file = input_file(whole.file)
    try:
        if format_of(whole.file) == "parquet":
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
    names = nested_schema(schema, source.columns).names
    lacking = [" or ".join(group) for group in source.required if not {*group} & {*names}]
    if lacking:
        raise UnreadableRow(f"no column {', '.join(sorted(lacking))}")
    if repeated := repeated_columns(schema, source.columns):
        raise UnreadableRow(f"more than one column {repeated[0]!r}")


def _parquet_rows(piece: Piece, source: RowSource) -> Iterator[tuple[int, Any]]:
    try:
        with open_parquet(input_file(piece.file)) as handle:
            _check_columns(handle.schema_arrow, source)
            found = nested_schema(handle.schema_arrow, source.columns).names
            names = [name for name in source.columns if name in found]
            rows = iter_row_group(handle, piece.position, piece.first, piece.stop, names)
            for index, batch, i in rows:
                yield index, whole_row(batch, i, names)
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
        else:
            row = nested_row(row, source.columns)
        yield index, row
