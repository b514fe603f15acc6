"""Changing a committed shard: for `purge` and `replay` only, one process at a time.

The shard's new tables are written under a new attempt's names, then its marker is replaced in one
step, then the old files go. Killed at any point, the stage is as before or as after; what a killed
process left behind is no part of it and is swept by the next one. Readers must not run meanwhile:
a file that an old marker names may be gone.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardCommit, ShardLedger
from codepmp_ray.shard_stats import shard_stats

_LOCK = "rewrite.lock"


def replace_shard(ledger: ShardLedger, old: ShardCommit, tables: Mapping[str, pa.Table]) -> None:
    """Let `tables` be the shard's tables. Call it inside `sole_writer`.

    Raises StorageError unless they hold as many rows as went into the shard.
    """
    ledger.replace(old, tables, shard_stats(tables))


@contextmanager
def sole_writer(ledger: ShardLedger) -> Iterator[None]:
    """Keep other processes from rewriting this stage. The lock ends with its holder, killed or not.

    Raises StorageError when another process has it.
    """
    path = ledger.store.path(_LOCK)
    with open(path, "wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"Another process is changing {ledger.store.root}.", "Wait until it is done."
            ) from error
        yield
