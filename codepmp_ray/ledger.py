"""Exactly-once output of sharded work: attempt-named data files and one exclusive marker per shard.

A worker writes its tables under names that carry a random attempt id, then tries to create the
shard's marker, which lists those names. Whoever creates the marker first has committed the shard;
a later attempt (a retry, or a writer thought dead that wakes up) finds the marker there, deletes
its own files and changes nothing. Readers open only files that a marker names. To resume is to
take the shards without a marker: the cost grows with shards, never with rows.

Layout below a stage folder:
    _commits/00012.json          marker
    pairs/00012.<attempt>.parquet
    rejected/00012.<attempt>.parquet
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.storage import LocalStore

_COMMITS = "_commits"


@dataclass(frozen=True)
class ShardCommit:
    """What one marker says. `files` and `num_rows` have one entry per table."""

    shard_id: int
    attempt: str
    num_input_rows: int
    files: dict[str, str]
    num_rows: dict[str, int]


class ShardLedger:
    """Commits and reads the shards of one stage folder."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def committed_ids(self) -> set[int]:
        """Shard ids that have a marker, from one directory listing."""
        return {
            int(name.removesuffix(".json"))
            for name in self.store.list(_COMMITS)
            if name.endswith(".json")
        }

    def missing_ids(self, num_shards: int) -> list[int]:
        return sorted(set(range(num_shards)) - self.committed_ids())

    def commits(self) -> list[ShardCommit]:
        """Every marker, in shard order."""
        return [self._read_marker(shard_id) for shard_id in sorted(self.committed_ids())]

    def commit(self, shard_id: int, num_input_rows: int, tables: Mapping[str, pa.Table]) -> bool:
        """Write `tables` and commit the shard; False if another attempt had committed it.

        Raises StorageError unless the tables together hold exactly `num_input_rows` rows: each
        input row must end in exactly one of them.
        """
        num_output_rows = sum(table.num_rows for table in tables.values())
        if num_output_rows != num_input_rows:
            raise StorageError(
                f"Shard {shard_id}: {num_input_rows} rows went in, {num_output_rows} came out.",
                "This is a bug in the stage: a row was lost or doubled. Nothing was written.",
            )
        attempt = uuid.uuid4().hex[:12]
        files = {table: f"{table}/{shard_id:05d}.{attempt}.parquet" for table in tables}
        for table, name in files.items():
            self.store.put_table(name, tables[table])
        marker = ShardCommit(
            shard_id, attempt, num_input_rows, files, {k: t.num_rows for k, t in tables.items()}
        )
        payload = json.dumps(asdict(marker), sort_keys=True).encode()
        won = self.store.put_exclusive(self._marker_name(shard_id), payload)
        if not won and self._read_marker(shard_id).attempt != attempt:
            for name in files.values():
                self.store.delete(name)
        return won

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """All committed rows of one table, in shard order."""
        parts = [
            self.store.read_table(commit.files[table], columns)
            for commit in self.commits()
            if commit.num_rows.get(table)
        ]
        return pa.concat_tables(parts) if parts else pa.table({})

    def read_shard(self, table: str, shard_id: int) -> pa.Table:
        """The rows of one table of one committed shard."""
        return self.store.read_table(self._read_marker(shard_id).files[table])

    def sweep(self, tables: Iterable[str]) -> int:
        """Delete files of lost attempts; returns how many.

        Only shards that are committed are swept: a file of any other shard may belong to a writer
        that is still alive and may yet win.
        """
        commits = {commit.shard_id: commit for commit in self.commits()}
        num_deleted = 0
        for table in tables:
            for name in self.store.list(table):
                commit = commits.get(int(name.split(".")[0]))
                if commit is not None and commit.files.get(table) != f"{table}/{name}":
                    self.store.delete(f"{table}/{name}")
                    num_deleted += 1
        return num_deleted

    def _marker_name(self, shard_id: int) -> str:
        return f"{_COMMITS}/{shard_id:05d}.json"

    def _read_marker(self, shard_id: int) -> ShardCommit:
        name = self._marker_name(shard_id)
        try:
            return ShardCommit(**json.loads(self.store.read_bytes(name)))
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"{self.store.path(name)} is not a commit marker ({error}).",
                "Delete it and run the stage again: only its shard is made anew.",
            ) from error
