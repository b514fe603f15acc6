"""Where every extracted snippet stands: positions in corpus order, and the chunks tasks take.

Snippets are numbered by unit, then by row: 0, 1, 2, ...; those that earlier corpora kept come
before them and have negative numbers. A chunk is a run of whole units (of shards, for an earlier
corpus). What is decided about a snippet follows from positions, never from chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from codepmp_ray.ledger import ShardLedger
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.storage import open_store

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Rows of one table of consecutive commits.

    Attributes:
        number: 0, 1, 2, ... among the chunks of one list.
        uri: where the ledger of the commits lies.
        start: position of the first row.
        first_unit: place of the first commit among all of its ledger.
    """

    number: int
    uri: str
    table: str
    commits: tuple[ShardCommit, ...]
    start: int
    first_unit: int = 0

    @property
    def sizes(self) -> Positions:
        """Rows of each commit."""
        return np.array([commit.num_rows[self.table] for commit in self.commits], dtype=np.int64)

    @property
    def num_rows(self) -> int:
        return int(self.sizes.sum())

    @property
    def positions(self) -> Positions:
        return np.arange(self.start, self.start + self.num_rows, dtype=np.int64)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """`columns` of all rows, in order of position."""
        store = open_store(self.uri)
        names = [commit.files[self.table] for commit in self.commits]
        return pa.concat_tables([store.read_table(name, list(columns)) for name in names])


def make_chunks(
    ledger: ShardLedger, uri: str, table: str, rows_per_chunk: int, start: int = 0
) -> list[Chunk]:
    """All rows of `table`, from position `start` on, in chunks of about `rows_per_chunk`."""
    chunks: list[Chunk] = []
    waiting: list[ShardCommit] = []
    num_waiting = num_units = 0
    for commit in ledger.commits():
        waiting.append(commit)
        num_waiting += commit.num_rows[table]
        if num_waiting >= rows_per_chunk:
            chunks.append(Chunk(len(chunks), uri, table, tuple(waiting), start, num_units))
            start, num_units = start + num_waiting, num_units + len(waiting)
            waiting, num_waiting = [], 0
    if waiting:
        chunks.append(Chunk(len(chunks), uri, table, tuple(waiting), start, num_units))
    return chunks


def renumbered(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The same chunks, numbered as one list."""
    return [replace(chunk, number=number) for number, chunk in enumerate(chunks)]


def fixed_bytes(column: pa.ChunkedArray, width: int) -> npt.NDArray[np.uint8]:
    """[rows, width] of a fixed-size binary column without nulls."""
    parts = [np.empty((0, width), dtype=np.uint8)]
    for array in column.chunks:
        data = np.frombuffer(array.buffers()[1] or b"", dtype=np.uint8)
        rows = data[array.offset * width : (array.offset + len(array)) * width]
        parts.append(rows.reshape(-1, width))
    return np.concatenate(parts)
