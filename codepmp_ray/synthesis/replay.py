"""Rejected rows of chosen reasons once more: rounds, what each takes up, and how it is folded in.

A round is a folder with a ledger of its own, `replays/<number>/`, so the work itself is as exact
and as resumable as the stage's. When all its shards are committed it is folded in, shard by shard:
the replayed rows take the place of the rejected ones, everything else stays as it is. Folding twice
gives the same tables, so that a killed replay is finished by running it again.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from codepmp_ray.errors import ConfigError
from codepmp_ray.json_records import stored_record
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import Stage
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.shard_rewrite import replace_shard
from codepmp_ray.storage import Store

_ROUNDS = "replays"
_TABLES = ("pairs", "rejected")


def check_reasons(reasons: tuple[str, ...]) -> None:
    """Raise ConfigError for a reason that does not exist or must not be replayed."""
    known = {reason.value for reason in RejectReason} - {RejectReason.PURGED.value}
    if wrong := sorted(set(reasons) - known):
        raise ConfigError(
            f"Rows cannot be replayed by the reason {wrong[0]!r}.",
            "The reasons are in docs/data-format.md; what was purged stays out.",
        )
    if not reasons:
        raise ConfigError("No reason was named.", "Give --reason, for example engine_error.")


def open_round(stage: Stage, reasons: tuple[str, ...]) -> Store:
    """The folder of the round to run: the unfinished one, else a new one.

    Raises ConfigError when the unfinished round is about other reasons.
    """
    wanted = sorted(set(reasons))
    clear_done_rounds(stage)
    number = unfinished_round(stage) or f"{len(stage.store.list(_ROUNDS)):04d}"
    request = json.dumps({"reasons": wanted}).encode()
    stage.store.put_exclusive(f"{_ROUNDS}/{number}/request.json", request)
    found = stored_record(stage.store, f"{_ROUNDS}/{number}/request.json")["reasons"]
    if found != wanted:
        raise ConfigError(
            f"The replay of {', '.join(found)} is not finished.",
            "Finish it first: the same command with these reasons.",
        )
    return stage.store.sub(f"{_ROUNDS}/{number}")


def unfinished_round(stage: Stage) -> str | None:
    """Number of the round that was begun and is not done."""
    for number in stage.store.list(_ROUNDS):
        if not stage.store.exists(f"{_ROUNDS}/{number}/done.json"):
            return number
    return None


def rows_to_replay(
    corpus: ShardLedger, synthesis: ShardLedger, reasons: tuple[str, ...], shard_id: int
) -> pa.Table:
    """The shard's snippets that were rejected for one of `reasons`, in the corpus's order."""
    rejected = synthesis.read_shard("rejected", shard_id).select(["row_id", "reason"]).to_pylist()
    ids = {row["row_id"] for row in rejected if row["reason"] in reasons}
    snippets = corpus.read_shard("snippets", shard_id)
    wanted = [name in ids for name in snippets.column("snippet_id").to_pylist()]
    return snippets.filter(pa.array(wanted, pa.bool_()))


def fold_in(stage: Stage, round_store: Store) -> dict[str, Any]:
    """Put the round's rows in the place of the rejected ones; returns the round's counts."""
    ledger, replayed = stage.ledger, ShardLedger(round_store)
    num_rows = num_pairs = 0
    reasons: Counter[str] = Counter()
    old_commits = {commit.shard_id: commit for commit in ledger.commits()}
    for commit in replayed.commits():
        if commit.num_input_rows:
            tables = {name: round_store.read_table(commit.files[name]) for name in _TABLES}
            _fold_shard(ledger, old_commits[commit.shard_id], tables)
            num_rows += commit.num_input_rows
            num_pairs += commit.num_rows["pairs"]
            reasons.update(tables["rejected"].column("reason").to_pylist())
    ledger.sweep(_TABLES)
    return {
        "num_rows": num_rows,
        "num_pairs": num_pairs,
        "rejected_by_reason": dict(reasons.most_common()),
    }


def finish_round(round_store: Store, record: dict[str, Any]) -> None:
    """Mark the round as done and remove its tables, which are part of the stage now."""
    round_store.put("done.json", json.dumps(record, indent=2).encode())
    _remove_tables(round_store)


def clear_done_rounds(stage: Stage) -> None:
    """Remove the tables of rounds that were killed after they were done."""
    for number in stage.store.list(_ROUNDS):
        if stage.store.exists(f"{_ROUNDS}/{number}/done.json"):
            _remove_tables(stage.store.sub(f"{_ROUNDS}/{number}"))


def _remove_tables(round_store: Store) -> None:
    for folder in (*_TABLES, "_commits", "_rollups"):
        round_store.delete_tree(folder)


def _fold_shard(ledger: ShardLedger, old: ShardCommit, replayed: dict[str, pa.Table]) -> None:
    ids = set(replayed["pairs"].column("snippet_id").to_pylist())
    ids |= set(replayed["rejected"].column("row_id").to_pylist())
    tables = {}
    for name, id_column in (("pairs", "snippet_id"), ("rejected", "row_id")):
        table = ledger.store.read_table(old.files[name])
        kept = [row_id not in ids for row_id in table.column(id_column).to_pylist()]
        rest = table.filter(pa.array(kept, pa.bool_()))
        tables[name] = pa.concat_tables([rest, replayed[name]])
    replace_shard(ledger, old, tables)
