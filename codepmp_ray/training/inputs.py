"""The rows of a training stage as shards: pairs that the run made, or sets named by the recipe.

Sets are turned into pairs by the driver, before workers start, and written to the stage's folder:
what cannot be used is known before anything expensive begins, and workers read Parquet.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.config.data import OWN_PAIRS, DataSourceConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError
from codepmp_ray.json_records import stored_record
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.preference.sources.columns import ColumnUse, listed
from codepmp_ray.preference.sources.reading import column_use, pairs_of
from codepmp_ray.preference.sources.rows import Reject
from codepmp_ray.records import table_from_rows
from codepmp_ray.storage import Store, open_store
from codepmp_ray.training.task import InputShard

ROWS_PER_SHARD = 20_000
_MAX_SHARDS = 512  # each is an open file of every rank
_FOLDER = "sources"
_COLUMNS = ("pair_id", "problem_id", "source_id", "repo", "path", "prompt")
_COLUMNS += ("chosen", "rejected", "margin")
# Lists of messages, as JSON: their fields differ from set to set.
_CONVERSATIONS = ("messages", "chosen_context", "rejected_context")
# A prepared row: a pair, or a reject with its reason.
PREPARED = pa.schema(
    [
        ("pair_id", pa.string()),
        ("problem_id", pa.string()),
        ("source_id", pa.string()),
        ("prompt", pa.string()),
        *((name, pa.string()) for name in _CONVERSATIONS),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("margin", pa.float64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def ledger_inputs(stage_dir: str, table: str) -> tuple[InputShard, ...]:
    """The rows of one table of a finished stage, its shards taken together to files of some size.

    The digest follows from the files that the shards' markers name: a purge changes it.
    """
    commits = [
        commit
        for commit in ShardLedger(open_store(stage_dir)).commits()
        if commit.num_rows.get(table)
    ]
    num_rows = sum(commit.num_rows[table] for commit in commits)
    target = max(ROWS_PER_SHARD, -(-num_rows // _MAX_SHARDS))
    groups: list[list[str]] = []
    room = 0
    for commit in commits:
        if room <= 0:
            groups.append([])
            room = target
        groups[-1].append(commit.files[table])
        room -= commit.num_rows[table]
    return tuple(
        InputShard(OWN_PAIRS, _digest("\n".join(files)), partial(_read_files, stage_dir, files))
        for files in groups
    )


def file_inputs(stage_dir: str, name: str) -> tuple[InputShard, ...]:
    """The rows of one Parquet file in the stage's folder."""
    digest = hashlib.sha256(open_store(stage_dir).read_bytes(name)).hexdigest()
    return (InputShard(OWN_PAIRS, digest, partial(_read_files, stage_dir, [name])),)


def prepare_sources(store: Store, config: TrainingConfig) -> tuple[InputShard, ...]:
    """Pairs of every set in `config.data`, made once per stage folder.

    Raises InputError for a set that cannot be read, lacks columns, gives no pair or whose prompts
    would be guessed, and for conversations under a plain template. What of its columns is not used
    is printed once, when it is read, and stays in its record.
    """
    return tuple(
        shard for source in config.data for shard in _prepare(store, source, config.template)
    )


def prepare_evaluation_sets(store: Store, config: TrainingConfig) -> tuple[InputShard, ...]:
    """`prepare_sources` of `config.eval_data`."""
    return tuple(
        replace(shard, is_evaluation=True)
        for source in config.eval_data
        for shard in _prepare(store, source, config.template)
    )


def _prepare(store: Store, source: DataSourceConfig, template: str) -> Iterator[InputShard]:
    marker = f"{_FOLDER}/{source.label}.json"
    if not store.exists(marker):
        use = column_use(source, template)
        record = _write_parts(store, source, use)
        if line := use.line():
            print(line, file=sys.stderr)
        store.put(marker, json.dumps(record, indent=2).encode())
    record = stored_record(store, marker)
    if not record["num_pairs"]:
        raise InputError(
            f"The set {source.label!r} gives no pair: {record['num_rejected']} rows "
            f"were rejected ({record['rejected']}; first: {record['first_reject']}).",
            f"Look at its rows: docs/data-format.md shows what kind={source.kind} expects; "
            f"columns not used: {listed(record.get('unused_columns', ())) or 'none'}.",
        )
    if record["num_conversations"] and template == "plain":
        raise InputError(
            f"{record['num_conversations']} of {record['num_pairs']} pairs of the set "
            f"{source.label!r} have prompts of several messages, which template=plain cannot show.",
            "Set template=chat in the training section, with a tokenizer that has a chat template.",
        )
    for part in record["parts"]:
        read = partial(_read_files, store.uri, [part["file"]])
        yield InputShard(source.label, part["digest"], read)


def _write_parts(store: Store, source: DataSourceConfig, use: ColumnUse) -> dict[str, Any]:
    rejects: Counter[str] = Counter()
    record: dict[str, Any] = {"num_pairs": 0, "num_conversations": 0, "first_reject": None}
    parts: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        table = table_from_rows(rows, PREPARED)
        name = f"{_FOLDER}/{source.label}/{len(parts):05d}.parquet"
        store.put_table(name, table)
        digest = hashlib.sha256(store.read_bytes(name)).hexdigest()
        parts.append({"file": name, "digest": digest})
        rows.clear()

    for built in pairs_of(source, use):
        if isinstance(built, Reject):
            rejects[built.reason] += 1
            record["first_reject"] = record["first_reject"] or f"row {built.index}: {built.detail}"
            rows.append(
                {
                    "pair_id": f"{source.label}#{built.index}",
                    "reason": str(built.reason),
                    "detail": f"row {built.index}: {built.detail}",
                }
            )
        else:
            record["num_pairs"] += 1
            record["num_conversations"] += built["messages"] is not None
            texts = {name: built[name] and json.dumps(built[name]) for name in _CONVERSATIONS}
            rows.append(built | texts)
        if len(rows) == ROWS_PER_SHARD:
            flush()
    if rows:
        flush()
    return {
        **record,
        "num_rejected": rejects.total(),
        "rejected": dict(rejects.most_common()),
        "unused_columns": list(use.unused),
        "num_shared_beginnings": use.num_shared,
        "parts": parts,
    }


def _read_files(stage_dir: str, names: list[str]) -> Iterator[dict[str, Any]]:
    store = open_store(stage_dir)
    wanted = [*_COLUMNS, *_CONVERSATIONS, "reason", "detail"]
    for name in names:
        for batch in store.read_table(name, wanted).to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                given = {name: json.loads(row[name]) for name in _CONVERSATIONS if row.get(name)}
                yield row | given


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
