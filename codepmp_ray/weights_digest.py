"""What an exported model's folder is known by: its content, read at some places of each tensor.

Names and sizes of all files, small files whole, and of every tensor in safetensors files some bytes
at places spread over it (a small tensor, such as a reward head, whole). Other weights at the old
path give another digest; a few values changed by hand inside a large tensor may not. Reading all
weights would take as long as loading them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codepmp_ray.content_digests import content_digest, is_settled, remembered
from codepmp_ray.errors import InputError
from codepmp_ray.hub_models import hub_model, snapshot
from codepmp_ray.storage import LocalStore, Store, absolute, is_uri, open_store

CALIBRATION_FILE = "codepmp_calibration.json"  # says what rewards are worth, and changes none
_WHOLE_BYTES = 1 << 22  # a file up to this size is read whole
_PLACES, _SAMPLE_BYTES = 4, 16_384  # of one tensor, or of another large file
_MAX_HEADER_BYTES = 1 << 27


def weights_digest(model_path: str) -> str:
    """64 hex digits of the folder at a path or URI; what is missing counts as empty.

    Hidden files and folders inside do not count: no engine loads them. Read once per machine while
    no file is written again. A hub model is fetched. Raises InputError when a file is damaged or
    cannot be read, and ModelError for a hub model that cannot be had.
    """
    hub = hub_model(model_path)
    place = absolute(str(snapshot(hub)) if hub else model_path)
    store = open_store(place)
    files = sorted(item for item in store.files("").items() if item[0] != CALIBRATION_FILE)
    sizes = [(name, facts.num_bytes) for name, facts in files]
    if isinstance(store, LocalStore) and not all(is_settled(int(f.version)) for _, f in files):
        return _read(store, sizes)
    versions = [[name, facts.num_bytes, facts.version] for name, facts in files]
    total = sum(size for _, size in sizes)
    return remembered(["weights", place, versions], total, lambda: _read(store, sizes))


def weights_version(model_name_or_path: str | None) -> str:
    """What a fingerprint holds of a model's weights: others under the old name are another model.

    Of a folder `weights_digest`, at a URI what the store says of its files. Empty for a model of
    the hub, which is known by its revision, and for one that this machine does not see. What cannot
    be read is refused by the job that loads it.
    """
    name = model_name_or_path or ""
    if not name or name.startswith("hf://"):
        return ""
    if is_uri(name):
        return content_digest(name)
    if not Path(absolute(name)).is_dir():
        return ""
    try:
        return weights_digest(name)
    except InputError as error:
        return str(error)


def _read(store: Store, files: list[tuple[str, int]]) -> str:
    import pyarrow as pa

    root, filesystem = store.arrow()
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(f"{name}\0{size}\n".encode())
        try:
            with filesystem.open_input_file(f"{root}/{name}") as file:
                for start, num_bytes in _places(file, name, size):
                    digest.update(file.read_at(num_bytes, start))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(
                f"{store.locate(name)} cannot be read to tell which model it is: {error}.",
                "Export the model again, or make the file readable.",
            ) from error
    return digest.hexdigest()


def _places(file: Any, name: str, size: int) -> Iterator[tuple[int, int]]:
    """(start, number of bytes) of what is read of a file."""
    if size <= _WHOLE_BYTES:
        yield 0, size
        return
    if not name.endswith(".safetensors"):
        yield from _spread(0, size)
        return
    first, header = safetensors_header(file, size)
    yield 0, first
    for tensor, facts in header.items():
        if tensor != "__metadata__":
            start, end = facts["data_offsets"]
            yield from _spread(first + start, end - start)


def safetensors_header(file: Any, size: int) -> tuple[int, dict[str, Any]]:
    """(bytes before the first tensor, header) of an open safetensors file of `size` bytes.

    Raises ValueError when it has none.
    """
    num_header = int.from_bytes(file.read_at(8, 0), "little")
    if num_header > min(size - 8, _MAX_HEADER_BYTES):
        raise ValueError(f"its header says it has {num_header} bytes")
    return 8 + num_header, json.loads(file.read_at(num_header, 8))


def _spread(start: int, size: int) -> Iterator[tuple[int, int]]:
    """All of `size` bytes, or equally distant places, the first and the last among them."""
    if size <= _PLACES * _SAMPLE_BYTES:
        yield start, size
        return
    last = size - _SAMPLE_BYTES
    yield from ((start + last * i // (_PLACES - 1), _SAMPLE_BYTES) for i in range(_PLACES))
