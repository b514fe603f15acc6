"""Before a stage is marked as complete: is everything still there that was committed?"""

from __future__ import annotations

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger


def require_all_shards(ledger: ShardLedger, num_shards: int) -> None:
    """Raise StorageError when shards that a job has seen committed are gone again.

    Somebody cleaned up the run directory in mid-run, say: writers make missing folders anew, so
    nothing else would notice, and a part of the rows would pass for all of them.
    """
    if missing := ledger.missing_ids(num_shards):
        raise StorageError(
            f"{len(missing)} of {num_shards} shards are gone from {ledger.store.uri}, the first "
            f"is {missing[0]}: files were removed while the job ran.",
            "Run the same command again: it makes what is missing.",
        )
