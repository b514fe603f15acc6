"""Encoded items in flat buffers on disk, read through a memory map; items are made on demand.

One Arrow IPC file of one record batch per shard of input rows. Token ids take four bytes each and
lie one item after the other; ranks of one machine share the pages. Beside each file lies a small
JSON record, written last: a file without it, of another size, checksum (which is looked at where it
costs no download) or input is made anew.

Of files in an object store each machine maps one copy, which has no name any more once
`TokenFiles.forget_copies` was called: its room is free when the last process that maps it ends.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.preference.items import EncodedItem, Sides
from codepmp_ray.storage import LocalStore, Store
from codepmp_ray.storage.base import FileFacts
from codepmp_ray.storage.node_copies import forget_file, local_file


class TokenFileWriter:
    """Collects the items of one shard and writes them as one file."""

    def __init__(self) -> None:
        self._tokens, self._lengths, self._pairs, self._best = (_Lists("i") for _ in range(4))
        self._margins = _Lists("d")
        self._of_prompt = array("i")
        self._held_out: list[bool] = []
        self._ids: list[str] = []

    def add(self, item: EncodedItem, held_out: bool) -> None:
        parts = [item.prompt, *item.answers]
        self._tokens.add(token for part in parts for token in part)
        self._lengths.add(map(len, parts))
        self._pairs.add(place for pair in item.pairs for place in pair)
        self._best.add(item.best)
        self._margins.add(item.margins)
        self._of_prompt.extend((item.num_pairs, item.num_lists))
        self._held_out.append(held_out)
        self._ids.append(item.item_id)

    def write(self, store: Store, name: str, input_digest: str, counts: dict[str, int]) -> None:
        """Write `<name>.arrow`, then `<name>.json`."""
        num_pairs, num_lists = np.asarray(self._of_prompt).reshape(-1, 2).T
        batch = pa.record_batch(
            {
                "item_id": pa.array(self._ids, pa.string()),
                "tokens": self._tokens.column(),
                "lengths": self._lengths.column(),
                "pairs": self._pairs.column(),
                "best": self._best.column(),
                "margins": self._margins.column(),
                "num_pairs": np.ascontiguousarray(num_pairs),
                "num_lists": np.ascontiguousarray(num_lists),
                "held_out": np.asarray(self._held_out, dtype=np.uint8),
            }
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        data = sink.getvalue()
        store.put(f"{name}.arrow", memoryview(data))  # bytes would be a second copy of it all
        record = {
            "input": input_digest,
            "num_bytes": data.size,
            "sha256": hashlib.sha256(data).hexdigest(),
            **counts,
        }
        store.put(f"{name}.json", json.dumps(record).encode())


class _Lists:
    """A column of lists of numbers: 'i' int32, 'd' float64."""

    def __init__(self, kind: str) -> None:
        self._values, self._ends = array(kind), array("q", [0])

    def add(self, values: Iterable[int | float]) -> None:
        self._values.extend(values)
        self._ends.append(len(self._values))

    def column(self) -> pa.LargeListArray:
        return pa.LargeListArray.from_arrays(np.asarray(self._ends), np.asarray(self._values))


def read_record(store: Store, name: str) -> dict[str, Any] | None:
    """What was written beside the file; None when there is nothing whole."""
    try:
        record = json.loads(store.read_bytes(f"{name}.json"))
    except (StorageError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_whole(store: Store, name: str, input_digest: str, facts: FileFacts | None) -> bool:
    """Whether the file, of which the store says `facts`, is undamaged and was made of this input.

    Reads all of a local one; an object store keeps what it has, and a copy is compared when it is
    made.
    """
    record = read_record(store, name)
    if record is None or record.get("input") != input_digest:
        return False
    if facts is None or facts.num_bytes != record.get("num_bytes"):
        return False
    if not isinstance(store, LocalStore):
        return True
    with open(store.path(f"{name}.arrow"), "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == record.get("sha256")


class _TokenFile:
    """One file's columns as views into the memory map."""

    def __init__(self, store: Store, name: str) -> None:
        record = read_record(store, name) or {}
        self.sha256, num_bytes = record.get("sha256", ""), record.get("num_bytes", 0)
        with local_file(store, f"{name}.arrow", self.sha256, num_bytes) as path:
            try:
                with pa.memory_map(str(path)) as source:
                    batch = pa.ipc.open_file(source).get_batch(0)
            except (pa.ArrowException, OSError) as error:
                raise StorageError(
                    f"{store.locate(name)}.arrow is not a readable token file ({error}).",
                    "Delete it and run the job again: it is made anew.",
                ) from error
        self.ids = batch.column("item_id")
        self._lists = {
            name: (batch.column(name).offsets.to_numpy(), batch.column(name).values.to_numpy())
            for name in ("tokens", "lengths", "pairs", "best", "margins")
        }
        self._num_pairs = batch.column("num_pairs").to_numpy()
        self._num_lists = batch.column("num_lists").to_numpy()
        self.held_out = batch.column("held_out").to_numpy()

    def item(self, index: int) -> EncodedItem:
        tokens, lengths, pairs, best, margins = (
            values[ends[index] : ends[index + 1]] for ends, values in self._lists.values()
        )
        ids, ends = tokens.tolist(), [0, *np.cumsum(lengths).tolist()]
        prompt, *answers = (ids[start:end] for start, end in pairwise(ends))
        return EncodedItem(
            self.ids[index].as_py(),
            prompt,
            answers,
            [(chosen, rejected) for chosen, rejected in pairs.reshape(-1, 2).tolist()],
            margins.tolist(),
            best.tolist(),
            int(self._num_pairs[index]),
            int(self._num_lists[index]),
        )

    def pair_counts(self) -> np.ndarray:
        """int64 [number of items]: pairs of each."""
        return np.diff(self._lists["margins"][0])

    def packed_lengths(self, sides: Sides) -> np.ndarray:
        """int64 [number of items]."""
        if sides != "best_alone":
            return np.diff(self._lists["tokens"][0])
        ends, lengths = self._lists["lengths"]
        best_ends, best = self._lists["best"]
        num_best = np.diff(best_ends)
        of_best = lengths[np.repeat(ends[:-1], num_best) + 1 + best].astype(np.int64)
        sums = np.concatenate([[0], np.cumsum(of_best)])
        found = lengths[ends[:-1]] + np.diff(sums[best_ends])
        return np.where(num_best > 0, found, 0)


class TokenFiles:
    """All items of several files, numbered through in their order."""

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._is_local = isinstance(store, LocalStore)
        self._files = [_TokenFile(store, name) for name in names]
        self.num_items_of_file = [len(file.ids) for file in self._files]
        self._starts = np.concatenate([[0], np.cumsum(self.num_items_of_file)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def forget_copies(self) -> None:
        """Delete this machine's copies of files of a remote store, once all have them open."""
        if not self._is_local:
            for file in self._files:
                forget_file(file.sha256)

    def item(self, index: int) -> EncodedItem:
        """The item of that number, made anew at each call."""
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._files[file].item(int(index - self._starts[file]))

    def packed_lengths(self, sides: Sides) -> np.ndarray:
        """int64 [number of items]: tokens that `pack` makes of each; 0 where nothing is left."""
        return _joined([file.packed_lengths(sides) for file in self._files], np.int64)

    def pair_counts(self) -> np.ndarray:
        """int64 [number of items]: pairs of each."""
        return _joined([file.pair_counts() for file in self._files], np.int64)

    def held_out(self) -> np.ndarray:
        """bool [number of items]."""
        return _joined([file.held_out for file in self._files], bool)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
