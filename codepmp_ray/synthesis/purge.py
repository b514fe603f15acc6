"""Taking repositories or files out of finished pairs: who opts out later is out as well.

Files are named as opt-out lists name them: by repository, by repository and path, by git blob id,
or by this project's `source_id`.

A pair of a purged source becomes a rejected row with the reason `purged`: ids stay, so that every
snippet is still accounted for, texts do not. Its rejected rows lose their texts the same way, and
`replay` never takes them up. The request is recorded before anything is changed and its counts come
from the tables, so that a killed purge is finished by running it again, and running it twice
changes nothing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardCommit, ShardLedger
from codepmp_ray.records import REJECTED, stable_id, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import Stage
from codepmp_ray.shard_rewrite import replace_shard, sole_writer
from codepmp_ray.synthesis.counts import recount
from codepmp_ray.synthesis.replay import clear_done_rounds, unfinished_round

Row = dict[str, Any]
_TABLES = ("pairs", "rejected")


@dataclass(frozen=True)
class PurgeRequest:
    """What has to go: exact values of the columns `repo`, `source_id` and `blob_id`, and of
    "repo:path" (":path" where a row has no repository)."""

    repos: frozenset[str] = frozenset()
    source_ids: frozenset[str] = frozenset()
    blob_ids: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    @property
    def purge_id(self) -> str:
        """The same for the same request."""
        parts = [f"{name}\n{value}" for name, values in self.lists.items() for value in values]
        return stable_id(*parts)[:12]

    @property
    def lists(self) -> dict[str, list[str]]:
        """The request as it is recorded."""
        return {field.name: sorted(getattr(self, field.name)) for field in fields(self)}

    def names(self, row: Row) -> bool:
        """Whether a row with these columns has to go."""
        return (
            row["repo"] in self.repos
            or row["source_id"] in self.source_ids
            or row["blob_id"] in self.blob_ids
            or f"{row['repo'] or ''}:{row['path']}" in self.paths
        )


def purge(stage: Stage, request: PurgeRequest) -> Row:
    """Carry out or finish `request` on a complete stage; returns its record.

    The record counts the rows that this request has purged, in this run and in killed ones before:
    `num_pairs`, `num_rejected` (rejected rows whose texts were removed), and `num_shards` changed.

    Raises InputError when the stage is not complete and StorageError when it is being changed
    or a replay is not finished.
    """
    stage.require()
    ledger, name = stage.ledger, f"purges/{request.purge_id}"
    with sole_writer(ledger):
        # Asked with the lock in hand: a replay cannot begin between the question and the purge.
        if unfinished_round(stage) is not None:
            raise StorageError(
                f"A replay of {stage.uri} is not finished; its rows would come back after the "
                "purge.",
                "Run the same jobs.replay command again first.",
            )
        tombstone = {
            "purge_id": request.purge_id,
            **request.lists,
            "requested": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        stage.store.put_exclusive(f"{name}.json", json.dumps(tombstone, indent=2).encode())
        clear_done_rounds(stage)
        for commit in ledger.commits():
            _purge_shard(ledger, commit, request)
        # Files that a killed purge had replaced but not yet deleted.
        ledger.sweep(_TABLES)
        recount(stage)
        tombstone = json.loads(stage.store.read_bytes(f"{name}.json"))
        record = tombstone | _count(ledger, request.purge_id)
        stage.store.put(f"{name}.done.json", json.dumps(record, indent=2).encode())
    return record


def _purge_shard(ledger: ShardLedger, commit: ShardCommit, request: PurgeRequest) -> None:
    hits = {name: _hits(ledger, commit, name, request) for name in _TABLES}
    if not any(map(any, hits.values())):
        return
    kept: dict[str, pa.Table] = {}
    gone: list[Row] = []
    for name, id_column in (("pairs", "snippet_id"), ("rejected", "row_id")):
        table = ledger.store.read_table(commit.files[name])
        kept[name] = table.filter(pa.array([not hit for hit in hits[name]], pa.bool_()))
        for row in table.filter(pa.array(hits[name], pa.bool_())).to_pylist():
            was = "a pair" if name == "pairs" else str(row["reason"])
            gone.append(_tombstone(row[id_column], was, row, request))
    rejected = pa.concat_tables([kept["rejected"], table_from_rows(gone, REJECTED)])
    replace_shard(ledger, commit, {"pairs": kept["pairs"], "rejected": rejected})


def _hits(ledger: ShardLedger, commit: ShardCommit, name: str, request: PurgeRequest) -> list[bool]:
    """For each row whether it has to go; only the columns that say so are read."""
    columns = ["repo", "source_id", "blob_id", "path"] + (["reason"] if name == "rejected" else [])
    rows = ledger.store.read_table(commit.files[name], columns).to_pylist()
    return [
        # What an earlier purge took out stays as it is.
        request.names(row) and row.get("reason") != RejectReason.PURGED
        for row in rows
    ]


def _tombstone(row_id: str, was: str, row: Row, request: PurgeRequest) -> Row:
    return {
        "row_id": row_id,
        "stage": "synthesis",
        "reason": str(RejectReason.PURGED),
        "detail": f"purge {request.purge_id}: was {was}",
        "source_id": row["source_id"],
        "blob_id": row["blob_id"],
        "repo": row["repo"],
    }


def _purged_rows(ledger: ShardLedger, purge_id: str) -> list[Row]:
    found = []
    for commit in ledger.commits():
        table = ledger.store.read_table(commit.files["rejected"], ["reason", "detail"])
        found += [
            {**row, "shard_id": commit.shard_id}
            for row in table.to_pylist()
            if row["reason"] == RejectReason.PURGED
            and row["detail"].startswith(f"purge {purge_id}:")
        ]
    return found


def _count(ledger: ShardLedger, purge_id: str) -> dict[str, int]:
    rows = _purged_rows(ledger, purge_id)
    num_pairs = sum(row["detail"].endswith("was a pair") for row in rows)
    return {
        "num_pairs": num_pairs,
        "num_rejected": len(rows) - num_pairs,
        "num_shards": len({row["shard_id"] for row in rows}),
    }
