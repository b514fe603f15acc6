"""What a model's safetensors files hold, by their headers: names, types and shapes, no values.

Which files are read is what transformers and vLLM agree on: those that the index lists, or
model.safetensors. A left-over or a variant beside them is named and never read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from codepmp_ray.errors import ModelError, StorageError
from codepmp_ray.hub_models import INDEX_FILE, SINGLE_FILE
from codepmp_ray.storage import Store
from codepmp_ray.weights_digest import safetensors_header

# Our own, beside a base whose family has no sequence classifier: `score.weight`, [1, H].
HEAD_FILE = "reward_head.safetensors"
HEAD = "score.weight"
LM_HEADS = ("lm_head.weight", "embed_out.weight")
_ADAPTER_FILE = "adapter_config.json"
_PARTS = "DCP_SHARDING_INFO"  # torch's own mark of files that hold parts of tensors
_AGAIN = "The folder's files do not belong together; download or export it again."
_PLACE_BYTES = 4096


@dataclass(frozen=True)
class StoredTensor:
    """`dtype` as safetensors writes it, such as BF16 or F8_E4M3; bytes `start` to `end` of `file`.

    `is_part` of a larger tensor, as torch.distributed.checkpoint writes them.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    is_part: bool


@dataclass(frozen=True)
class CheckpointFiles:
    """The files that are read, their tensors, and the safetensors files beside them.

    `source` is the file that says, or is, what is read; empty where all are.
    """

    name: str
    store: Store
    source: str
    files: tuple[str, ...]
    tensors: dict[str, StoredTensor]
    unlisted: tuple[str, ...]

    def is_zero(self, name: str) -> bool:
        """Whether all values are zero; for small tensors, which are read whole."""
        tensor = self.tensors[name]
        return not any(self._read(tensor, 0, tensor.end - tensor.start))

    def look_alike(self, one: str, other: str) -> bool:
        """Whether two tensors have the same type, shape, and values at some places."""
        a, b = self.tensors[one], self.tensors[other]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        last = max(0, a.end - a.start - _PLACE_BYTES)
        places = [last * i // 3 for i in range(4)]
        return all(self._read(a, i, _PLACE_BYTES) == self._read(b, i, _PLACE_BYTES) for i in places)

    def _read(self, tensor: StoredTensor, offset: int, num_bytes: int) -> bytes:
        import pyarrow as pa

        root, filesystem = self.store.arrow()
        start = tensor.start + offset
        try:
            with filesystem.open_input_file(f"{root}/{tensor.file}") as file:
                return file.read_at(min(num_bytes, tensor.end - start), start)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.name, tensor.file, error) from error


def read_headers(store: Store, name: str) -> CheckpointFiles:
    """What the model `name`, which lies in `store`, would be loaded from.

    Raises ModelError for missing, damaged or contradictory files, and for an unmerged adapter.
    """
    sizes = {file: facts.num_bytes for file, facts in store.files("").items()}
    present = sorted(file for file in sizes if file.endswith(".safetensors"))
    if not present:
        raise ModelError(
            f"{name} has no *.safetensors files.",
            "Convert the weights with save_pretrained; pickled weights are not loaded.",
        )
    if _ADAPTER_FILE in sizes:
        raise ModelError(
            f"{name} has an adapter ({_ADAPTER_FILE}) that is not merged into its weights.",
            "Merge it (peft: merge_and_unload, then save_pretrained) and give that folder.",
        )
    source = next((file for file in (INDEX_FILE, SINGLE_FILE) if file in sizes), "")
    places = _index(store, name) if source == INDEX_FILE else {}
    files = sorted(set(places.values())) or [SINGLE_FILE]
    if not source:
        files = present  # shards whose index was lost are whole if every tensor is found
    for file in files:
        if file not in sizes:
            raise ModelError(f"{name} has no {file}, which its {INDEX_FILE} lists.", _AGAIN)
    if HEAD_FILE in sizes and HEAD_FILE not in files:
        keys = [key for key, _ in _tensors(store, name, HEAD_FILE, sizes[HEAD_FILE])]
        files += [HEAD_FILE] * (keys == [HEAD])
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for key, tensor in _tensors(store, name, file, sizes[file]):
            if key in tensors and not tensor.is_part:
                raise ModelError(f"{name}: {key} is in {tensors[key].file} and in {file}.", _AGAIN)
            tensors[key] = tensor
    for key in sorted(set(places) - set(tensors) - set(LM_HEADS)):  # a tied one is often left out
        raise ModelError(
            f"{name}: {places[key]} has no {key}, which {INDEX_FILE} says it has.", _AGAIN
        )
    unlisted = tuple(file for file in present if file not in files)
    return CheckpointFiles(name, store, source, tuple(files), tensors, unlisted)


@cache
def say_once(line: str) -> None:
    """Print a line on stderr; the same one not again in this process."""
    print(line, file=sys.stderr, flush=True)


def _index(store: Store, name: str) -> dict[str, str]:
    try:
        places = json.loads(store.read_bytes(INDEX_FILE).decode())["weight_map"]
    except (ValueError, KeyError, TypeError, StorageError) as error:
        raise _unreadable(name, INDEX_FILE, error) from error
    if not places or not isinstance(places, dict):
        raise ModelError(f"{name}: {INDEX_FILE} lists no file.", _AGAIN)
    return places


def _tensors(store: Store, name: str, file: str, size: int) -> Iterator[tuple[str, StoredTensor]]:
    import pyarrow as pa

    root, filesystem = store.arrow()
    try:
        with filesystem.open_input_file(f"{root}/{file}") as handle:
            first, header = safetensors_header(handle, size)
        marks: dict[str, Any] = header.pop("__metadata__", None) or {}
        for key, facts in header.items():
            start, end = (first + offset for offset in facts["data_offsets"])
            if end > size:
                raise ValueError(f"it ends before {key} does")
            shape = tuple(facts["shape"])
            yield key, StoredTensor(file, facts["dtype"], shape, start, end, _PARTS in marks)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise _unreadable(name, file, error) from error


def _unreadable(name: str, file: str, error: Exception) -> ModelError:
    problem = (str(error).strip() or repr(error)).splitlines()[0]
    return ModelError(
        f"The model {name!r} cannot be loaded: {file}: {problem}.",
        "Check the folder's files; download or export it again.",
    )
