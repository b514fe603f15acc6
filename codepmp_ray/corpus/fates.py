"""The keep-list: what becomes of every extracted snippet, in tables of one chunk each.

`deduplication` writes them, in one process or many; `assembly` makes the corpus of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from codepmp_ray.corpus.layout import Chunk
from codepmp_ray.corpus.selection import (
    DUPLICATE,
    KEPT,
    NEAR_DUPLICATE,
    OVER_MAX,
    Selection,
    sample_hashes,
)
from codepmp_ray.ledger import ShardLedger

FATES, UNITS = "fates", "units"
_FATES = pa.schema(
    [
        pa.field("unit", pa.int64()),
        pa.field("ordinal", pa.int64()),
        pa.field("fate", pa.int8()),  # see selection
        pa.field("winner", pa.string()),  # id of the snippet that a duplicate lost to
        pa.field("sample", pa.uint64()),  # of kept ones, where a sample is still to be taken
    ]
)
_UNITS = pa.schema([pa.field("unit", pa.int64()), pa.field("num_kept", pa.int64())])
Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class SampleLimit:
    """The last (hash, position) that belongs to the sample of `max_snippets`."""

    value: int
    position: int

    def excludes(
        self, hashes: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        value = np.uint64(self.value)
        return (hashes > value) | ((hashes == value) & (positions > self.position))


def fates_of_losses(
    chunk: Chunk, exact: pa.Table, near: pa.Table, sample_seed: int | None
) -> Tables:
    """Tables of one chunk from its LOSSES; `sample_seed` where a sample is still to be taken."""
    rows = chunk.read(["ordinal", "dedup_key"] if sample_seed is not None else ["ordinal"])
    fates = np.full(rows.num_rows, KEPT, dtype=np.int8)
    winners = np.full(rows.num_rows, None, dtype=object)
    for losses, fate in ((near, NEAR_DUPLICATE), (exact, DUPLICATE)):
        local = losses["position"].to_numpy() - chunk.start
        fates[local] = fate
        winners[local] = losses["first_id"].to_numpy(zero_copy_only=False)
    hashes = None
    if sample_seed is not None:
        kept = np.flatnonzero(fates == KEPT)
        keys = b"".join(rows["dedup_key"].to_pylist())
        values = np.zeros(rows.num_rows, dtype=np.uint64)
        values[kept] = sample_hashes(keys, kept, sample_seed)
        hashes = pa.array(values, mask=fates != KEPT)
    return _tables(chunk, rows["ordinal"], fates, pa.array(winners, pa.string()), hashes)


def fates_of_selection(
    chunk: Chunk,
    selection: Selection,
    ordinals: npt.NDArray[np.int64],
    snippet_ids: pa.ChunkedArray | pa.Array,
    num_earlier: int,
) -> Tables:
    """Tables of one chunk of a selection that one process made.

    `snippet_ids` begin with `num_earlier` of earlier corpora, which negative positions mean.
    """
    here = slice(chunk.start, chunk.start + chunk.num_rows)
    fates, first = selection.fates[here], selection.first[here]
    has_winner = (fates == DUPLICATE) | (fates == NEAR_DUPLICATE)
    places = pa.array(first + num_earlier, mask=~has_winner)
    winners = snippet_ids.take(places)
    if isinstance(winners, pa.ChunkedArray):
        winners = winners.combine_chunks()
    return _tables(chunk, pa.array(ordinals[here]), fates, winners, None)


def _tables(
    chunk: Chunk,
    ordinals: pa.Array | pa.ChunkedArray,
    fates: npt.NDArray[np.int8],
    winners: pa.Array,
    hashes: pa.Array | None,
) -> Tables:
    units = np.repeat(np.arange(len(chunk.commits)), chunk.sizes)
    num_kept = np.bincount(units[fates == KEPT], minlength=len(chunk.commits))
    columns = {
        "unit": pa.array(units + chunk.first_unit),
        "ordinal": ordinals,
        "fate": pa.array(fates),
        "winner": winners,
        "sample": pa.nulls(len(fates), pa.uint64()) if hashes is None else hashes,
    }
    numbers = np.arange(len(chunk.commits)) + chunk.first_unit
    counts = {"unit": pa.array(numbers), "num_kept": pa.array(num_kept)}
    return {
        FATES: pa.table(columns).cast(_FATES),
        UNITS: pa.table(counts).cast(_UNITS),
    }


def sample_limit(
    fates: ShardLedger, chunks: list[Chunk], max_snippets: int | None
) -> SampleLimit | None:
    """Where the sample ends, read a chunk at a time; None if everything that stayed is in it."""
    if max_snippets is None:
        return None
    hashes, positions = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    num_kept = 0
    for chunk, commit in zip(chunks, fates.commits(), strict=True):
        column = fates.store.read_table(commit.files[FATES], ["sample"])["sample"]
        found = np.flatnonzero(column.is_valid().to_numpy())
        num_kept += len(found)
        hashes = np.concatenate([hashes, column.drop_null().to_numpy()])
        positions = np.concatenate([positions, chunk.start + found])
        # Stable, and positions ascend: of equal hashes the earlier snippets are taken.
        smallest = np.sort(np.argsort(hashes, kind="stable")[:max_snippets])
        hashes, positions = hashes[smallest], positions[smallest]
    if num_kept <= max_snippets:
        return None
    last = np.lexsort((positions, hashes))[-1]
    return SampleLimit(int(hashes[last]), int(positions[last]))


def kept_per_unit(
    fates: ShardLedger, chunks: list[Chunk], limit: SampleLimit | None
) -> npt.NDArray[np.int64]:
    """Number of snippets that stay, for every unit in order."""
    counts = [np.empty(0, dtype=np.int64)]
    for chunk, commit in zip(chunks, fates.commits(), strict=True):
        if limit is None:
            counts.append(fates.store.read_table(commit.files[UNITS])["num_kept"].to_numpy())
            continue
        rows = fates.store.read_table(commit.files[FATES], ["unit", "fate", "sample"])
        stays = final_fates(rows, chunk.positions, limit) == KEPT
        units = rows["unit"].to_numpy()[stays] - chunk.first_unit
        counts.append(np.bincount(units, minlength=len(chunk.commits)))
    return np.concatenate(counts)


def final_fates(
    rows: pa.Table, positions: npt.NDArray[np.int64], limit: SampleLimit | None
) -> npt.NDArray[np.int8]:
    """The column `fate` after the sample has been taken."""
    fates = rows["fate"].to_numpy()
    if limit is None:
        return fates
    fates = fates.copy()
    hashes = rows["sample"].fill_null(0).to_numpy()
    fates[(fates == KEPT) & limit.excludes(hashes, positions)] = OVER_MAX
    return fates
