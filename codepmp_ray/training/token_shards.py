"""The token file of one input shard: rows encoded, joined to items, each of them accounted for.

Rows that follow each other with one prompt of one origin are one item (preference/items.py).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.preference.encoding import Encoded, encode_pairs, row_id
from codepmp_ray.preference.items import EncodedItem, join_pairs, num_lists_cut, split_item
from codepmp_ray.preference.token_files import TokenFileWriter
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.shard_stats import shard_stats
from codepmp_ray.storage import Store
from codepmp_ray.training.task import SOURCE_STATS, InputShard, TrainingTask

USED = pa.schema(
    [
        ("pair_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("num_tokens", pa.int64()),
        ("truncated", pa.bool_()),
    ]
)
_ROWS_AT_ONCE = 256  # of one call of the tokenizer
_FORMAT = 3  # goes up when token files hold something else


def encoding_key(encoder: Encoder, config: TrainingConfig) -> str:
    """12 hex digits that change when rows would give other tokens or another split."""
    tokenizer = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [
        _FORMAT,
        backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        tokenizer.eos_token_id,
        encoder.vocab_size,
        vars(encoder.template),
        [config.max_length, config.overflow, config.seed, config.eval_fraction],
        config.item_tokens,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def make_token_file(
    store: Store, name: str, number: int, task: TrainingTask, encoder: Encoder, is_accounted: bool
) -> None:
    """Write the token file of input shard `number`, and account for its rows if nobody has."""
    shard = task.inputs[number]
    ledger = ShardLedger(store)
    writer = TokenFileWriter()
    used: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    names = ("num_items", "num_split", "num_cut", "num_without_best")
    of_items: Counter[str] = Counter(dict.fromkeys(names, 0))
    rows = _encoded(shard, encoder, task.config)
    for _, group in groupby(rows, key=lambda encoded: _prompt_of(encoded[0])):
        pairs: list[EncodedItem] = []
        held_out = False
        for row, pair in group:
            if not isinstance(pair, EncodedItem):
                rejected.append(_rejected_row(row, task.stage, str(pair[0]), pair[1]))
                continue
            held_out = shard.is_evaluation or is_held_out(row, task.config)
            pairs.append(pair)
            used.append(
                {
                    "pair_id": pair.item_id,
                    "source": shard.source,
                    "split": "eval" if held_out else "train",
                    "num_tokens": pair.num_tokens,
                    "truncated": pair.truncated,
                }
            )
        if pairs:
            whole = join_pairs(pairs)
            parts = split_item(whole, task.config.item_tokens)
            for part in parts:
                writer.add(part, held_out)
            of_items.update(
                num_items=len(parts),
                num_split=len(parts) > 1,
                num_cut=num_lists_cut(parts),
                num_without_best=not whole.best,
            )
    counts = {"num_used": len(used), "num_rejected": len(rejected)}
    if is_accounted:
        _check_same(ledger, number, counts)
    else:
        tables = {
            "used": table_from_rows(used, USED),
            "rejected": table_from_rows(rejected, REJECTED),
        }
        stats = _stats(shard.source, used, rejected, of_items) | shard_stats(
            {"rejected": tables["rejected"]}
        )
        ledger.commit(number, len(used) + len(rejected), tables, stats)
    writer.write(store, name, shard.digest, counts | of_items)


def _encoded(
    shard: InputShard, encoder: Encoder, config: TrainingConfig
) -> Iterator[tuple[dict[str, Any], Encoded | tuple[str, str]]]:
    """Each row with what became of it. Raises InputError when required columns are missing."""
    rows = iter(shard.read())
    is_first = True
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        if is_first and (lacking := {"prompt", "chosen", "rejected"} - set(batch[0])):
            raise InputError(
                f"The pairs lack the columns {sorted(lacking)}; they have {sorted(batch[0])}.",
                "Give a set in TRL preference format.",
            )
        is_first = False
        whole = [row for row in batch if not row.get("reason")]
        encoded = iter(encode_pairs(whole, encoder, config.max_length, config.overflow))
        for row in batch:
            refused = (row["reason"], row.get("detail") or "") if row.get("reason") else None
            yield row, refused or next(encoded)


def is_held_out(row: dict[str, Any], config: TrainingConfig) -> bool:
    """A function of the row's origin (problem, else source file, else pair).

    Rows of one origin never lie on both sides of the split.
    """
    digest = hashlib.sha256(f"{config.seed}|{_origin(row) or row_id(row)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < config.eval_fraction


def _origin(row: dict[str, Any]) -> str | None:
    return row.get("problem_id") or row.get("source_id")


def _prompt_of(row: dict[str, Any]) -> Any:
    """What rows of one item have in common; a row without an origin has nothing."""
    origin = _origin(row)
    return object() if origin is None else (origin, row.get("prompt"), row.get("messages"))


def _stats(
    source: str,
    used: list[dict[str, Any]],
    rejected: list[dict[str, Any]],
    of_items: Counter[str],
) -> dict:
    """Counts by source, for the stage's summary; zeros are left out."""
    counts = {
        "num_pairs": len(used),
        "num_items": of_items["num_items"],
        "num_prompts_split": of_items["num_split"],
        "num_prompts_without_best": of_items["num_without_best"],
        "num_held_out": sum(row["split"] == "eval" for row in used),
        "num_truncated": sum(row["truncated"] for row in used),
        "num_rejected": len(rejected),
        "num_over_max_length": sum(
            row["reason"] == RejectReason.OVER_MAX_LENGTH for row in rejected
        ),
    }
    return {f"{SOURCE_STATS}{source}/{name}": count for name, count in counts.items() if count}


def _check_same(ledger: ShardLedger, number: int, counts: dict[str, int]) -> None:
    """Raises StorageError when the rows of a shard are others than when the stage began."""
    for commit in ledger.commits():
        found = (commit.num_rows["used"], commit.num_rows["rejected"])
        if commit.shard_id == number and found != (counts["num_used"], counts["num_rejected"]):
            raise StorageError(
                f"Input shard {number} of this stage gave {found[0]} pairs and {found[1]} rejects "
                f"when the stage began, and gives {counts['num_used']} and "
                f"{counts['num_rejected']} now: its rows have changed.",
                f"Delete {ledger.store.uri} and run the stage again.",
            )


def _rejected_row(row: dict[str, Any], stage: str, reason: str, detail: str) -> dict[str, Any]:
    has_texts = all(isinstance(row.get(name), str) for name in ("prompt", "chosen", "rejected"))
    return {
        "row_id": row.get("pair_id") or (row_id(row) if has_texts else None),
        "stage": stage,
        "reason": reason,
        "detail": detail,
        "source_id": row.get("source_id"),
        "repo": row.get("repo"),
        "path": row.get("path"),
        "payload": None,
    }
