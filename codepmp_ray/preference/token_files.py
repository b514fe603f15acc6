"""Encoded pairs in flat buffers on disk, read through a memory map; pairs are made on demand.

One Arrow IPC file of one record batch per shard of input rows. Token ids take four bytes each and
lie one pair after the other; ranks of one machine share the pages. Beside each file lies a small
JSON record, written last: a file without it, of another size, checksum (which is looked at where it
costs no download) or input is made anew.

Of files in an object store each machine maps one copy, which has no name any more once
`TokenFiles.forget_copies` was called: its room is free when the last process that maps it ends.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.preference.packing import EncodedPair, Sides
from codepmp_ray.storage import LocalStore, Store
from codepmp_ray.storage.base import FileFacts
from codepmp_ray.storage.node_copies import forget_file, local_file


class TokenFileWriter:
    """Collects the pairs of one shard and writes them as one file."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._lengths: tuple[array, array, array] = (array("i"), array("i"), array("i"))
        self._margins = array("d")
        self._held_out: list[bool] = []
        self._ids: list[str] = []

    def add(self, pair: EncodedPair, held_out: bool) -> None:
        for part, lengths in zip(
            (pair.prompt, pair.chosen, pair.rejected), self._lengths, strict=True
        ):
            self._tokens.extend(part)
            lengths.append(len(part))
        self._margins.append(pair.margin)
        self._held_out.append(held_out)
        self._ids.append(pair.pair_id)

    def write(self, store: Store, name: str, input_digest: str, counts: dict[str, int]) -> None:
        """Write `<name>.arrow`, then `<name>.json`."""
        num_prompt, num_chosen, num_rejected = (np.asarray(part) for part in self._lengths)
        offsets = np.zeros(len(self._ids) + 1, dtype=np.int64)
        np.cumsum(num_prompt + num_chosen + num_rejected, dtype=np.int64, out=offsets[1:])
        batch = pa.record_batch(
            {
                "pair_id": pa.array(self._ids, pa.string()),
                "tokens": pa.LargeListArray.from_arrays(offsets, np.asarray(self._tokens)),
                "num_prompt": num_prompt,
                "num_chosen": num_chosen,
                "margin": np.asarray(self._margins),
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
        tokens = batch.column("tokens")
        self.ids = batch.column("pair_id")
        self.tokens = tokens.values.to_numpy()
        self.offsets = tokens.offsets.to_numpy()
        self.num_prompt = batch.column("num_prompt").to_numpy()
        self.num_chosen = batch.column("num_chosen").to_numpy()
        self.margins = batch.column("margin").to_numpy()
        self.held_out = batch.column("held_out").to_numpy()

    def pair(self, index: int) -> EncodedPair:
        start, end = self.offsets[index], self.offsets[index + 1]
        chosen = start + self.num_prompt[index]
        rejected = chosen + self.num_chosen[index]
        return EncodedPair(
            self.ids[index].as_py(),
            self.tokens[start:chosen].tolist(),
            self.tokens[chosen:rejected].tolist(),
            self.tokens[rejected:end].tolist(),
            float(self.margins[index]),
        )


class TokenFiles:
    """All pairs of several files, numbered through in their order."""

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._is_local = isinstance(store, LocalStore)
        self._files = [_TokenFile(store, name) for name in names]
        self.num_pairs_of_file = [len(file.ids) for file in self._files]
        self._starts = np.concatenate([[0], np.cumsum(self.num_pairs_of_file)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def forget_copies(self) -> None:
        """Delete this machine's copies of files of a remote store, once all have them open."""
        if not self._is_local:
            for file in self._files:
                forget_file(file.sha256)

    def pair(self, index: int) -> EncodedPair:
        """The pair of that number, made anew at each call."""
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._files[file].pair(int(index - self._starts[file]))

    def packed_lengths(self, sides: Sides) -> np.ndarray:
        """int64 [number of pairs]: tokens that `pack` makes of each."""
        parts = [
            file.num_prompt.astype(np.int64) + file.num_chosen
            if sides == "chosen_alone"
            else np.diff(file.offsets)
            for file in self._files
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def held_out(self) -> np.ndarray:
        """bool [number of pairs]."""
        parts = [file.held_out.astype(bool) for file in self._files]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)
