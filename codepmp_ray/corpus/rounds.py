"""One round of the search for duplicates over a cluster: keys go to partitions and are compared.

A round looks at one kind of key: `exact`, or one band of the sketches. Its first half has a task
per chunk, which sends every row to the partition that its key belongs to; its second half a task
per partition, which sees all rows of its keys, in corpus order, and writes down who lost to whom.
A key lies in one partition only, so that what is found depends on neither their number nor any
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from codepmp_ray.config.corpus import NearDuplicateConfig
from codepmp_ray.corpus.clusters import alike_edges
from codepmp_ray.corpus.keep_index import SIGNATURE, signature_matrix
from codepmp_ray.corpus.layout import Chunk, Positions, fixed_bytes
from codepmp_ray.corpus.selection import first_of_equal
from codepmp_ray.ledger import ShardLedger

EXACT = "exact"
Tables = dict[str, pa.Table]
# Who lost, to whom, and the winner's id.
LOSSES = pa.schema(
    [
        pa.field("position", pa.int64()),
        pa.field("first", pa.int64()),
        pa.field("first_id", pa.string()),
    ]
)


def scatter_exact(chunk: Chunk, num_partitions: int) -> Tables:
    """The chunk's keys of exact duplicates, by partition."""
    rows = chunk.read(["dedup_key", "snippet_id"]).rename_columns(["key", "snippet_id"])
    keys = fixed_bytes(rows["key"], 16)[:, :8].copy().view(np.uint64)[:, 0]
    return _scatter(rows, chunk.positions, keys, num_partitions)


def scatter_band(chunk: Chunk, band: str, copies: Positions | None, num_partitions: int) -> Tables:
    """The chunk's keys of one band with their signatures, by partition.

    `copies` are positions of exact duplicates. They stay away: they would be alike to whatever the
    snippet is alike to that they equal.
    """
    rows = chunk.read([band, SIGNATURE, "snippet_id"])
    rows = rows.rename_columns(["key", SIGNATURE, "snippet_id"])
    positions = chunk.positions
    if copies is not None and len(copies):
        keep = np.ones(len(positions), dtype=bool)
        keep[copies - chunk.start] = False
        rows, positions = rows.filter(pa.array(keep)), positions[keep]
    return _scatter(rows, positions, rows["key"].to_numpy(), num_partitions)


def compare_exact(keys: ShardLedger, partition: int, starts: Positions) -> Tables:
    """Exact duplicates of one partition, in one table for each chunk that they lie in.

    `starts` are the first positions of the chunks, ascending.
    """
    rows = _gather(keys, partition)
    if rows is None:
        return {}
    positions = rows["position"].to_numpy()
    first = first_of_equal(fixed_bytes(rows["key"], 16).tobytes())
    lost = np.flatnonzero(first != np.arange(len(first)))
    losses = _losses(rows, positions[lost], first[lost])
    chunk_of = np.searchsorted(starts, positions[lost], side="right") - 1
    return {
        chunk_table(number): losses.filter(pa.array(chunk_of == number))
        for number in np.unique(chunk_of).tolist()
    }


def compare_band(keys: ShardLedger, partition: int, settings: NearDuplicateConfig) -> Tables:
    """Table `edges` (LOSSES): neighbours of one partition."""
    rows = _gather(keys, partition)
    if rows is None:
        return {"edges": LOSSES.empty_table()}
    members, leaders = alike_edges(
        rows["key"].to_numpy(),
        signature_matrix(rows[SIGNATURE], settings),
        settings.min_similarity,
    )
    return {"edges": _losses(rows, rows["position"].to_numpy()[members], leaders)}


def losses_of_chunk(found: ShardLedger, number: int) -> pa.Table:
    """LOSSES of one chunk from all partitions of the exact round, by position."""
    name = chunk_table(number)
    parts = [found.store.read_table(c.files[name]) for c in found.commits() if name in c.files]
    return pa.concat_tables([LOSSES.empty_table(), *parts]).sort_by("position")


def chunk_table(number: int) -> str:
    return f"chunk_{number:06d}"


def _scatter(rows: pa.Table, positions: Positions, keys: np.ndarray, num_partitions: int) -> Tables:
    rows = rows.append_column("position", pa.array(positions))
    partition = (keys % np.uint64(num_partitions)).astype(np.int64)
    # Stable: within a partition positions ascend.
    order = np.argsort(partition, kind="stable")
    rows = rows.take(pa.array(order))
    borders = np.searchsorted(partition[order], np.arange(num_partitions + 1))
    return {
        _partition_table(i): rows.slice(start, stop - start)
        for i, (start, stop) in enumerate(pairwise(borders.tolist()))
        if stop > start
    }


def _gather(keys: ShardLedger, partition: int) -> pa.Table | None:
    """All rows of a partition in corpus order, or None: shards of `keys` are chunks in order."""
    name = _partition_table(partition)
    parts = [keys.store.read_table(c.files[name]) for c in keys.commits() if name in c.files]
    return pa.concat_tables(parts) if parts else None


def _losses(rows: pa.Table, losers: Positions, winners: Positions) -> pa.Table:
    """LOSSES; `losers` are positions, `winners` numbers of `rows`."""
    columns = {
        "position": pa.array(losers),
        "first": rows["position"].take(pa.array(winners)).combine_chunks(),
        "first_id": rows["snippet_id"].take(pa.array(winners)).combine_chunks(),
    }
    return pa.table(columns).cast(LOSSES)


def _partition_table(partition: int) -> str:
    return f"part_{partition:06d}"


def edges_in_blocks(
    rounds: list[ShardLedger], columns: list[str], rows_at_once: int
) -> Iterator[pa.Table]:
    """The edges of several rounds, about `rows_at_once` at a time."""
    waiting: list[pa.Table] = []
    for found in rounds:
        for commit in found.commits():
            waiting.append(found.store.read_table(commit.files["edges"], columns))
            if sum(part.num_rows for part in waiting) >= rows_at_once:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
