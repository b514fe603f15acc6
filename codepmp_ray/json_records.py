"""JSON of what was measured: numbers that JSON does not have are null, with a field that says so.

Python writes `NaN` and `Infinity`, which are no JSON (RFC 8259): jq, JavaScript and DuckDB refuse
the whole file. Here such a number is null, and `not_finite` of the record names it and what it was:

    {"step": 3, "loss": null, "not_finite": {"/loss": "NaN"}}

Names are JSON pointers (RFC 6901). `read_record` puts the numbers back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from codepmp_ray.errors import StorageError
from codepmp_ray.storage.base import DAMAGE_REMEDY

if TYPE_CHECKING:
    from codepmp_ray.storage import Store

NOT_FINITE = "not_finite"


Record = Mapping[str, Any]


def record_bytes(record: Record | list[Record], **options: Any) -> bytes:
    """A record, or a list of them, as UTF-8 JSON; `options` are those of json.dumps."""
    plain = [_plain(row) for row in record] if isinstance(record, list) else _plain(record)
    return json.dumps(plain, allow_nan=False, **options).encode()


def read_record(text: bytes | str) -> Any:
    """What `record_bytes` was given; of other JSON what json.loads says. Raises ValueError."""
    found = json.loads(text)
    return [_restored(row) for row in found] if isinstance(found, list) else _restored(found)


def stored_record(store: Store, name: str) -> dict[str, Any]:
    """The record in a file of a run directory. Raises StorageError that names it, where it is not
    there or holds something else."""
    try:
        found = read_record(store.read_bytes(name))
    except ValueError as error:
        found = str(error)
    if isinstance(found, dict):
        return found
    why = found if isinstance(found, str) else f"it holds a {type(found).__name__}"
    raise StorageError(
        f"{store.locate(name)} is no JSON record ({why}).",
        DAMAGE_REMEDY,
    )


def _plain(record: Record) -> dict[str, Any]:
    found: dict[str, str] = {}
    plain = _without(record, "", found)
    return plain | {NOT_FINITE: found} if found else plain


def _restored(record: Any) -> Any:
    if not isinstance(record, dict) or not isinstance(record.get(NOT_FINITE), dict):
        return record
    for pointer, number in record.pop(NOT_FINITE).items():
        *above, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]
        place: Any = record
        for part in above[1:]:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = float(number)
    return record


def _without(value: Any, pointer: str, found: dict[str, str]) -> Any:
    """`value` with null for what is not finite; `found` gets the pointers to these."""
    if isinstance(value, float) and not math.isfinite(value):
        found[pointer] = json.dumps(float(value))
        return None
    if isinstance(value, Mapping):
        return {
            key: _without(part, f"{pointer}/{_escaped(key)}", found) for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without(part, f"{pointer}/{index}", found) for index, part in enumerate(value)]
    return value


def _escaped(key: Any) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")
