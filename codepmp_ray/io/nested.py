"""Columns inside columns: `meta.license` is the field `license` of the column `meta`.

A column that is itself called `meta.license` comes first. Lists are not gone into.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa


def nested_schema(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """`schema`, and beside its columns the fields of structs that `names` name."""
    for name in names:
        path = _path(schema.names, name)
        if path and (kind := _kind(schema, path)) is not None:
            schema = schema.append(pa.field(name, kind))
    return schema


def nested_batch(batch: pa.RecordBatch, names: Iterable[str]) -> pa.RecordBatch:
    """`batch` with those fields as columns; null where the struct around one is null."""
    for name in names:
        path = _path(batch.schema.names, name)
        if path and _kind(batch.schema, path) is not None:
            array: Any = batch.column(path[0])
            for part in path[1:]:  # flatten() keeps what is null around a field
                array = array.flatten()[array.type.get_field_index(part)]
            batch = batch.append_column(name, array)
    return batch


def nested_row(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`row` with those fields beside its columns, where it has them."""
    found = row
    for name in names:
        path = _path(row, name)
        value: Any = row if path else None
        for part in path:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            if path:
                found = {**found, name: value}
    return found


def _path(columns: Collection[str], name: str) -> list[str]:
    """Where `name` leads; empty where it names a column, or nothing."""
    path = name.split(".")
    return path if len(path) > 1 and name not in columns and path[0] in columns else []


def _kind(schema: pa.Schema, path: list[str]) -> pa.DataType | None:
    if schema.names.count(path[0]) > 1:
        return None
    kind = schema.field(path[0]).type
    for part in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind
