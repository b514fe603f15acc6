"""Exactly-once output of sharded work: attempt-named data files and one exclusive marker per shard.

A worker writes its tables under names that carry a random attempt id, then tries to create the
shard's marker, which lists those names. Whoever creates the marker first has committed the shard;
a later attempt (a retry, or a writer thought dead that wakes up) finds the marker there, deletes
its own files and changes nothing. Readers open only files that a marker names. To resume is to
take the shards without a marker: the cost grows with shards, never with rows.

Layout below a stage folder; shards lie in groups of GROUP_SIZE, so that no folder grows large:
    _commits/00000/00000012.json          marker
    _rollups/00000.parquet                copies of a whole group's markers, with their totals
    pairs/00000/00000012.<attempt>.parquet
    rejected/00000/00000012.<attempt>.parquet

A roll-up exists only for a group whose every shard is committed, and markers are never removed (a
marker that is gone could be created again). So it changes nothing but the cost of reading: one
file instead of GROUP_SIZE, and of that only the footer where totals suffice.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import numpy as np
import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.shard_markers import (
    COMMITS,
    GROUP,
    MARKER,
    ROLLUP,
    ROLLUPS,
    TABLE_FILE,
    ShardCommit,
    Totals,
    content_digest,
    own_numbers,
)
from codepmp_ray.storage import Store
from codepmp_ray.storage.base import parquet_bytes

GROUP_SIZE = 1_000
_TOTALS_KEY = b"codepmp.totals"


class ShardLedger:
    """Commits and reads the shards of one stage folder."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def committed_ids(self) -> set[int]:
        """Shard ids that have a marker. Lists folders, opens no file."""
        found: set[int] = set()
        for ids in self._ids_by_group():
            found.update(ids)
        return found

    def missing_ids(self, num_shards: int) -> list[int]:
        """Ids below `num_shards` without a marker, ascending."""
        missing = np.ones(num_shards, dtype=bool)
        for ids in self._ids_by_group():
            inside = np.asarray(ids, dtype=np.int64)
            missing[inside[inside < num_shards]] = False
        return np.flatnonzero(missing).tolist()

    def commits(self) -> Iterator[ShardCommit]:
        """Every marker, in shard order, without holding them all."""
        rolled_up = self._rolled_up()
        for group in sorted(rolled_up | set(self._groups(COMMITS))):
            if group in rolled_up:
                yield from self.read_rollup(self._rollup_name(group))
            else:
                yield from self._read_markers(sorted(self._ids_of_group(group)))

    def totals(self) -> Totals:
        """Sums over all markers: one footer per rolled-up group, one small file per other shard."""
        return self.totals_and_recent()[0]

    def totals_and_recent(self) -> tuple[Totals, list[ShardCommit]]:
        """`totals`, and the markers of groups that are not rolled up, in order of their commits."""
        totals = Totals()
        rolled_up = self._rolled_up()
        names = [self._rollup_name(group) for group in rolled_up]
        for metadata in self.store.each(self.store.read_table_metadata, names):
            totals.add(Totals.parse(metadata[_TOTALS_KEY]))
        recent = list(self._read_markers(self._ids_not_in(rolled_up)))
        for marker in recent:
            totals.add(Totals.of(marker))
        return totals, sorted(recent, key=lambda commit: commit.committed_s)

    def commit(
        self,
        shard_id: int,
        num_input_rows: int,
        tables: Mapping[str, pa.Table],
        stats: Mapping[str, int] | None = None,
    ) -> bool:
        """Write `tables` and commit the shard; False if another attempt had committed it.

        Raises StorageError unless the tables together hold exactly `num_input_rows` rows: each
        input row must end in exactly one of them.
        """
        marker = self._write_attempt(shard_id, num_input_rows, tables, stats)
        won = self.store.put_exclusive(self._marker_name(shard_id), marker.text.encode())
        if not won and self.read_marker(shard_id).attempt != marker.attempt:
            for file in marker.files.values():
                self.store.delete(file)
        return won

    def replace(
        self,
        old: ShardCommit,
        tables: Mapping[str, pa.Table],
        stats: Mapping[str, int] | None = None,
    ) -> None:
        """Let `tables` be the tables of a committed shard; for one writer at a time, no reader.

        Killed at any point, the shard is as before or as after. Its group's roll-up goes first,
        and is written anew by the next `roll_up`.
        """
        marker = self._write_attempt(old.shard_id, old.num_input_rows, tables, stats)
        self.store.delete(self._rollup_name(old.shard_id // GROUP_SIZE))
        self.store.put(self._marker_name(old.shard_id), marker.text.encode())
        for file in old.files.values():
            self.store.delete(file)

    def forget(self, shard_id: int, files: Iterable[str]) -> None:
        """Take a committed shard and its files back: for repair alone, while nothing runs.

        Killed at any point, the shard is there as before, or is not.
        """
        for name in (self._rollup_name(shard_id // GROUP_SIZE), self._marker_name(shard_id)):
            self.store.delete(name)
        for file in files:
            self.store.delete(file)

    def _write_attempt(
        self,
        shard_id: int,
        num_input_rows: int,
        tables: Mapping[str, pa.Table],
        stats: Mapping[str, int] | None,
    ) -> ShardCommit:
        """Write `tables` under names of their own; returns the marker that would commit them."""
        num_rows = {table: rows.num_rows for table, rows in tables.items()}
        if sum(num_rows.values()) != num_input_rows:
            raise StorageError(
                f"Shard {shard_id}: {num_input_rows} rows went in, "
                f"{sum(num_rows.values())} came out.",
                "This is a bug in the stage: a row was lost or doubled. Nothing was written.",
            )
        attempt = uuid.uuid4().hex[:12]
        files = {name: f"{name}/{_shard_name(shard_id)}.{attempt}.parquet" for name in tables}
        num_bytes, digests = {}, {}
        for name, file in files.items():
            data = parquet_bytes(tables[name])
            num_bytes[name], digests[name] = len(data), content_digest(data)
            self.store.put(file, data)
        facts = (dict(stats or {}), time.time(), num_bytes, digests)
        return ShardCommit(shard_id, attempt, num_input_rows, files, num_rows, *facts)

    def roll_up(self) -> int:
        """Write the roll-up of every complete group that has none; returns how many.

        Markers change through `replace` only, which runs alone and removes the roll-up first. So
        it does not matter how many processes write it, nor when.
        """
        num_written = 0
        for group in sorted(set(self._groups(COMMITS)) - self._rolled_up()):
            ids = self._ids_of_group(group)
            if len(ids) < GROUP_SIZE:
                continue
            markers = list(self._read_markers(sorted(ids)))
            totals = Totals()
            for marker in markers:
                totals.add(Totals.of(marker))
            table = pa.table({"marker": [marker.text for marker in markers]})
            metadata = {_TOTALS_KEY: totals.text.encode()}
            self.store.put_table(self._rollup_name(group), table.replace_schema_metadata(metadata))
            num_written += 1
        return num_written

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """All committed rows of one table, in shard order."""
        parts = list(self.read_each(table, columns))
        return pa.concat_tables(parts) if parts else pa.table({})

    def read_each(self, table: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """`read`, a shard at a time: for what must not grow with the number of rows."""
        files = (c.files[table] for c in self.commits() if c.num_rows.get(table))
        yield from self.store.each(lambda file: self.store.read_table(file, columns), files)

    def read_shard(self, table: str, shard_id: int) -> pa.Table:
        """The rows of one table of one committed shard."""
        return self.store.read_table(self.read_marker(shard_id).files[table])

    def read_marker(self, shard_id: int) -> ShardCommit:
        """Raises StorageError where it is damaged or not there."""
        name = self._marker_name(shard_id)
        try:
            return ShardCommit.parse(self.store.read_bytes(name))
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"{self.store.locate(name)} is not a commit marker ({error}).",
                "Delete it and run the stage again, or run codepmp verify --repair: only its shard "
                "is made anew.",
            ) from error

    def read_rollup(self, name: str) -> Iterator[ShardCommit]:
        """The markers in the roll-up at `name`. Raises StorageError where it is damaged."""
        for text in self.store.read_table(name).column("marker").to_pylist():
            yield ShardCommit.parse(text)

    def sweep(self, tables: Iterable[str]) -> int:
        """Delete files of lost attempts; returns how many.

        Only shards that are committed are swept: a file of any other shard may belong to a writer
        that is still alive and may yet win.
        """
        committed, num_deleted = self.committed_ids(), 0
        for table in tables:
            for group in self._groups(table):
                names: dict[int, list[str]] = defaultdict(list)
                for entry in self.store.list(f"{table}/{group:05d}"):
                    if match := TABLE_FILE.fullmatch(entry):
                        names[int(match[1])].append(f"{table}/{group:05d}/{entry}")
                for shard_id, files in names.items():
                    # The winner's file is always there, so a single one is the winner's.
                    if len(files) == 1 or shard_id not in committed:
                        continue
                    keep = self.read_marker(shard_id).files.get(table)
                    for file in files:
                        if file != keep:
                            self.store.delete(file)
                            num_deleted += 1
        return num_deleted

    def num_bytes_missing(self, totals: Totals) -> int:
        """How much less lies in the tables than the markers of `totals` say; by listing alone.

        0 where files of lost attempts make up for what is gone: `run_damage` looks at each.
        """
        missing = 0
        for table, wanted in totals.num_bytes.items():
            folders = [f"{table}/{group:05d}" for group in self._groups(table)]
            there = sum(
                facts.num_bytes
                for files in self.store.each(self.store.files, folders)
                for name, facts in files.items()
                if TABLE_FILE.fullmatch(name)
            )
            missing += max(0, wanted - there)
        return missing

    def _groups(self, folder: str) -> list[int]:
        return own_numbers(GROUP, self.store.list(folder))

    def _rolled_up(self) -> set[int]:
        return set(own_numbers(ROLLUP, self.store.list(ROLLUPS)))

    def _ids_of_group(self, group: int) -> list[int]:
        return own_numbers(MARKER, self.store.list(f"{COMMITS}/{group:05d}"))

    def _ids_by_group(self) -> Iterator[Iterable[int]]:
        rolled_up = self._rolled_up()
        for group in rolled_up:
            yield range(group * GROUP_SIZE, (group + 1) * GROUP_SIZE)
        yield from self.store.each(self._ids_of_group, set(self._groups(COMMITS)) - rolled_up)

    def _ids_not_in(self, rolled_up: set[int]) -> Iterator[int]:
        groups = set(self._groups(COMMITS)) - rolled_up
        return chain.from_iterable(self.store.each(self._ids_of_group, groups))

    def _read_markers(self, shard_ids: Iterable[int]) -> Iterator[ShardCommit]:
        return self.store.each(self.read_marker, shard_ids)

    @staticmethod
    def _marker_name(shard_id: int) -> str:
        return f"{COMMITS}/{_shard_name(shard_id)}.json"

    @staticmethod
    def _rollup_name(group: int) -> str:
        return f"{ROLLUPS}/{group:05d}.parquet"


def _shard_name(shard_id: int) -> str:
    return f"{shard_id // GROUP_SIZE:05d}/{shard_id:08d}"
