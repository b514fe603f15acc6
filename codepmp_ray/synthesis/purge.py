"""Taking repositories or files out of what is finished: who opts out later is out as well.

Files are named as opt-out lists name them, and compared in the same way (`filters.opt_out`).

Every stage of the run that holds their text is changed: snippets and pairs of a purged source
become rejected rows with the reason `purged` (ids stay, so that every row is still accounted for,
texts do not), rejected rows lose their texts, and tokens that were made of pairs are deleted. The
request is recorded before anything is changed: later stages of the run leave the names out, and
`replay` never takes such rows up. Counts come from the tables, so that a killed purge is finished
by running it again, and running it twice changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import pyarrow as pa

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus.counts import corpus_counts
from codepmp_ray.corpus.filters.opt_out import PURGES, OptOutList, plain_name
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import REJECTED, stable_id, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import Stage, stage_folders
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.shard_rewrite import replace_shard, sole_writer
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.counts import recount
from codepmp_ray.synthesis.replay import clear_done_rounds, unfinished_round

Row = dict[str, Any]
# Per stage the table of its products and what a row of it is.
_PRODUCTS = {"corpus": ("snippets", "a snippet"), "synthesis": ("pairs", "a pair")}
_PLACE = ("repo", "path", "source_id", "blob_id")
_OF_REJECTED = "rejected_"  # begins the columns of the rejected side's file, where a stage has them
_BETWEEN = "\t"  # of names in a detail: paths may hold anything that people write
_HOLDERS = ("corpus", "synthesis", "pretraining")


@dataclass(frozen=True)
class PurgeRequest:
    """What has to go: names of repositories, `source_id`s, git blob ids, and "repo:path" (":path"
    where a row has no repository)."""

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

    @property
    def names(self) -> list[str]:
        return [name for names in self.lists.values() for name in names]

    @cached_property
    def _entries(self) -> OptOutList:
        return OptOutList(frozenset(map(plain_name, self.names)))

    def match(self, row: Row) -> frozenset[str]:
        """The names, as they are compared, for which a row with these columns has to go.

        A pair of two files goes for either of them.
        """
        found: frozenset[str] = frozenset()
        for side in ("", _OF_REJECTED):
            place = [row.get(f"{side}{name}") for name in _PLACE]
            if not side or any(place):
                found |= self._entries.match(*place)
        return found


def purge_run(recipe: Recipe, request: PurgeRequest, tell: Callable[[Stage, Row], None]) -> None:
    """Carry out or finish `request` on every stage of the run; `tell` gets each with its record.

    Raises InputError for names that match nothing, once everything else is done, and as `purge`.
    """
    run = open_store(recipe.run_dir)
    stages = [stage for stage in stage_folders(recipe) if stage.name in _HOLDERS]
    holding = [stage for stage in stages if stage.name in _PRODUCTS and stage.has_begun]
    if not holding:
        raise InputError(f"{recipe.run_dir} holds neither snippets nor pairs.")
    for stage in holding:
        _require_complete(stage)
    record = {"purge_id": request.purge_id, **request.lists, "names": request.names}
    run.put(f"{PURGES}/{request.purge_id}.json", record_bytes(record, indent=2))
    matched: set[str] = set()
    for stage in holding:
        record = purge(stage, request)
        matched.update(record["matched"])
        tell(stage, record)
    for stage in stages:
        stage.store.delete_tree("tokens")  # a training makes them anew from what is left
    if lost := [name for name in request.names if plain_name(name) not in matched]:
        raise InputError(
            f"purge {request.purge_id} is done, but {len(lost)} of its {len(request.names)} names "
            f"match no row: {', '.join(lost[:10])}.",
            "Look at the columns repo, path, blob_id and source_id of the stage's tables.",
        )


def purge(stage: Stage, request: PurgeRequest) -> Row:
    """Carry out or finish `request` on one complete stage; returns its record.

    The record counts the rows that this request has purged, in this run and in killed ones before:
    `num_pairs` (or `num_snippets`), `num_rejected` (rejected rows whose texts were removed), and
    `num_shards` changed; `matched` are the names that any row has.

    Raises InputError when the stage is not complete and StorageError when it is being changed
    or a replay is not finished.
    """
    stage.require()
    product, was = _PRODUCTS[stage.name]
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
            _purge_shard(stage, commit, request)
        # Files that a killed purge had replaced but not yet deleted.
        ledger.sweep((product, "rejected"))
        if stage.name == "corpus":
            summary = stage.summary()
            summary |= corpus_counts(ledger, list(summary.get("contaminated", {})))
            stage.store.put("complete.json", record_bytes(summary, indent=2))
        else:
            recount(stage)
        tombstone = stored_record(stage.store, f"{name}.json")
        record = tombstone | _count(ledger, request, product, was)
        stage.store.put(f"{name}.done.json", json.dumps(record, indent=2).encode())
    return record


def _require_complete(stage: Stage) -> None:
    if not stage.is_complete:
        raise InputError(
            f"{stage.uri} is not finished: what it is about to make would not be purged.",
            "Finish that stage with the command that began it, or delete its folder.",
        )


def _purge_shard(stage: Stage, commit: ShardCommit, request: PurgeRequest) -> None:
    ledger, (product, was) = stage.ledger, _PRODUCTS[stage.name]
    hits = {name: _hits(ledger, commit, name, request) for name in (product, "rejected")}
    if not any(map(any, hits.values())):
        return
    kept: dict[str, pa.Table] = {}
    gone: list[Row] = []
    for name, id_column in ((product, "snippet_id"), ("rejected", "row_id")):
        table = ledger.store.read_table(commit.files[name])
        is_hit = list(map(bool, hits[name]))
        kept[name] = table.filter(pa.array([not hit for hit in is_hit], pa.bool_()))
        named_by = filter(None, hits[name])
        for row, names in zip(
            table.filter(pa.array(is_hit, pa.bool_())).to_pylist(), named_by, strict=True
        ):
            what = was if name == product else str(row["reason"])
            detail = (
                f"purge {request.purge_id}: was {what}: named by {_BETWEEN.join(sorted(names))}"
            )
            gone.append(
                {
                    "row_id": row[id_column],
                    "stage": stage.name,
                    "reason": str(RejectReason.PURGED),
                    "detail": detail,
                    **{column: row[column] for column in ("source_id", "blob_id", "repo")},
                }
            )
    rejected = pa.concat_tables([kept["rejected"], table_from_rows(gone, REJECTED)])
    replace_shard(ledger, commit, {product: kept[product], "rejected": rejected})


def _hits(
    ledger: ShardLedger, commit: ShardCommit, name: str, request: PurgeRequest
) -> list[frozenset[str]]:
    """For each row the names for which it has to go; only the columns that say so are read."""
    # Those that a table lacks are left out.
    columns = [*_PLACE, *(f"{_OF_REJECTED}{place}" for place in _PLACE), "reason"]
    rows = ledger.store.read_table(commit.files[name], columns).to_pylist()
    # What an earlier purge took out stays as it is.
    return [
        frozenset() if row.get("reason") == RejectReason.PURGED else request.match(row)
        for row in rows
    ]


def _count(ledger: ShardLedger, request: PurgeRequest, product: str, was: str) -> Row:
    """From the rows that are purged now; they still say where they were."""
    num = {f"num_{product}": 0, "num_rejected": 0, "num_shards": 0}
    matched: set[str] = set()
    columns = ["reason", "detail", "repo", "path", "source_id", "blob_id"]
    for commit in ledger.commits():
        rows = ledger.store.read_table(commit.files["rejected"], columns).to_pylist()
        purged = [row for row in rows if row["reason"] == RejectReason.PURGED]
        own = [row["detail"].split(": ", 2) for row in purged]
        own = [parts for parts in own if parts[0] == f"purge {request.purge_id}"]
        for _, kind, *names in own:
            num[f"num_{product}" if kind == f"was {was}" else "num_rejected"] += 1
            matched.update("".join(names).removeprefix("named by ").split(_BETWEEN))
        num["num_shards"] += bool(own)
        matched.update(name for row in purged for name in request.match(row))
    return {**num, "matched": sorted(filter(None, matched))}
