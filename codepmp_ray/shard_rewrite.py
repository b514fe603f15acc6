"""Changing a committed shard: for `purge` and `replay` only, one process at a time.

The shard's new tables are written under a new attempt's names, then its marker is replaced in one
step, then the old files go. Killed at any point, the stage is as before or as after; what a killed
process left behind is no part of it and is swept by the next one. Readers must not run meanwhile:
a file that an old marker names may be gone.
"""

from __future__ import annotations

import fcntl
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardCommit, ShardLedger

_LOCK = "rewrite.lock"


def replace_shard(ledger: ShardLedger, old: ShardCommit, tables: Mapping[str, pa.Table]) -> None:
    """Let `tables` be the shard's tables. Call it inside `sole_writer`.

    Raises StorageError unless they hold as many rows as went into the shard.
    """
    num_rows = {name: table.num_rows for name, table in tables.items()}
    if sum(num_rows.values()) != old.num_input_rows:
        raise StorageError(
            f"Shard {old.shard_id}: {old.num_input_rows} rows would become "
            f"{sum(num_rows.values())}.",
            "This is a bug: a row was lost or doubled. The shard was left as it is.",
        )
    attempt = uuid.uuid4().hex[:12]
    files = {name: f"{name}/{old.shard_id:05d}.{attempt}.parquet" for name in tables}
    for name, file in files.items():
        ledger.store.put_table(file, tables[name])
    marker = ShardCommit(old.shard_id, attempt, old.num_input_rows, files, num_rows)
    payload = json.dumps(asdict(marker), sort_keys=True).encode()
    ledger.store.put(ledger._marker_name(old.shard_id), payload)
    for file in old.files.values():
        ledger.store.delete(file)


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
