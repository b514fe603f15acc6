"""Changing a committed shard: for `purge` and `replay` only, one process at a time.

The shard's new tables are written under a new attempt's names, then its marker is replaced in one
step, then the old files go. Killed at any point, the stage is as before or as after; what a killed
process left behind is no part of it and is swept by the next one. Readers must not run meanwhile:
a file that an old marker names may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from codepmp_ray.ledger import ShardLedger
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.shard_stats import shard_stats

_LOCK = "rewrite.lock"


def replace_shard(ledger: ShardLedger, old: ShardCommit, tables: Mapping[str, pa.Table]) -> None:
    """Let `tables` be the shard's tables. Call it inside `sole_writer`.

    Raises StorageError unless they hold as many rows as went into the shard.
    """
    ledger.replace(old, tables, shard_stats(tables))


@contextmanager
def sole_writer(ledger: ShardLedger) -> Iterator[None]:
    """Keep other processes from rewriting this stage.

    Raises StorageError when another process has the lock; on an object store also when the last one
    was killed, and then says what to delete.
    """
    with ledger.store.lock(_LOCK):
        yield
