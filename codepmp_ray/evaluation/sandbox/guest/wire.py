"""Plain data over a pipe or socket: length-prefixed JSON that keeps Python's built-in types apart.

Not pickle or marshal: what arrives was made by untrusted code.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

PREFIX_BYTES = 4


class Opaque:
    """Stands for a value that is not plain data: equal to nothing, true or false as it was."""

    def __init__(self, type_name: str, truth: bool) -> None:
        self.type_name, self.truth = type_name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def encode(value: Any) -> Any:
    """JSON value for `value`; subclasses (Counter, IntEnum) become the type they extend."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    for tag, kind in (("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if isinstance(value, kind):
            return {tag: [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    if type(value).__module__ == "numpy" and value.ndim == 0:
        return encode(value.item())
    return {"opaque": [type(value).__name__, bool(value)]}


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda items: [decode(item) for item in items],
    "tuple": lambda items: tuple(decode(item) for item in items),
    "set": lambda items: {decode(item) for item in items},
    "frozenset": lambda items: frozenset(decode(item) for item in items),
    "dict": lambda items: {decode(key): decode(item) for key, item in items},
    "bytes": bytes.fromhex,
    "complex": lambda parts: complex(*parts),
    "decimal": Decimal,
    "fraction": lambda parts: Fraction(*parts),
    "opaque": lambda parts: Opaque(str(parts[0]), bool(parts[1])),
}


def decode(data: Any) -> Any:
    """The value behind `data`. Raises some ordinary exception for what `encode` never makes."""
    if not isinstance(data, dict):
        return data
    ((tag, content),) = data.items()
    return _DECODERS[tag](content)


def run_source(source: str, name: str, scope: dict[str, Any]) -> None:
    """Execute `source` as a file of its own, without the __future__ imports of this one."""
    exec(compile(source, f"<{name}>", "exec", dont_inherit=True), scope)


def frame(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack("!I", len(body)) + body


def frame_size(prefix: bytes) -> int:
    return struct.unpack("!I", prefix)[0]


def read_frame(fd: int) -> dict[str, Any]:
    """Blocking read of one message; unbuffered, so that nothing of the next one is taken.

    Raises EOFError when the other side is closed.
    """
    return json.loads(_read_exactly(fd, frame_size(_read_exactly(fd, PREFIX_BYTES))))


def write_frame(fd: int, message: dict[str, Any]) -> None:
    data = frame(message)
    while data:
        data = data[os.write(fd, data) :]


def _read_exactly(fd: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.read(fd, min(count, 1 << 16))
        if not part:
            raise EOFError("the other side is closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
