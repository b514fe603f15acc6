"""Rows in, encoded items out: the same on every rank, with every unusable row accounted for.

Rows that follow each other with one prompt of one origin are one item (preference/items.py).
Rows are tokenised once. Each rank encodes every n-th input shard into a token file of the stage's
folder; then all ranks read all files through memory maps. A file that is damaged, half written or
made of other rows is made anew, so it does not matter when a run was killed or with how many ranks
it goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import torch.distributed as dist

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.collectives import Gather, failing_together, gather_objects
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.encoding import Encoded, encode_pairs, row_id
from codepmp_ray.preference.items import (
    EncodedItem,
    Sides,
    join_pairs,
    num_lists_cut,
    split_item,
)
from codepmp_ray.preference.mixing import Mixture
from codepmp_ray.preference.token_files import (
    TokenFiles,
    TokenFileWriter,
    is_whole,
    read_record,
)
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.shard_stats import shard_stats
from codepmp_ray.storage import Store, open_store
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


class ItemView(Sequence[EncodedItem]):
    """Some of the encoded items, made when they are asked for. `references` as in EncodedItem."""

    def __init__(
        self, files: TokenFiles, numbers: np.ndarray, references: pa.ChunkedArray | None = None
    ) -> None:
        self._files, self._numbers, self._references = files, numbers, references

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> EncodedItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedItem]: ...
    def __getitem__(self, index: int | slice) -> EncodedItem | list[EncodedItem]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        item = self._files.item(self._numbers[index])
        if self._references is None:
            return item
        return replace(item, references=self._references[int(index)].as_py())

    def packed_lengths(self, sides: Sides) -> np.ndarray:
        """int64 [number of items]: tokens that `pack` makes of each; no item is made for it."""
        return self._files.packed_lengths(sides)[self._numbers]

    def pair_counts(self) -> np.ndarray:
        """int64 [number of items]: pairs of each; no item is made for it."""
        return self._files.pair_counts()[self._numbers]

    def with_references(self, references: pa.ChunkedArray) -> ItemView:
        """The same items with log-likelihoods: a list of float64 for each item."""
        return ItemView(self._files, self._numbers, references)


@dataclass(frozen=True)
class TrainingData:
    """Encoded items of both splits, and how the sources of `train` are mixed."""

    train: ItemView
    held_out: ItemView
    mixture: Mixture


def load_training_data(task: TrainingTask, encoder: Encoder) -> TrainingData:
    """The items of the task; collective, and the same on every rank.

    Raises InputError on every rank when columns are missing or no pair is left to train on.
    """
    return load_items(task, encoder, dist.get_rank(), dist.get_world_size(), gather_objects)


def load_items(
    task: TrainingTask, encoder: Encoder, rank: int, num_ranks: int, gather: Gather
) -> TrainingData:
    """`load_training_data` for a rank that is told who it is."""
    store, config = open_store(task.out_dir), task.config
    folder = f"tokens/{encoding_key(encoder, config)}"
    names = [f"{folder}/{number:05d}" for number in range(len(task.inputs))]

    with failing_together(gather):
        accounted, there = ShardLedger(store).committed_ids(), store.files(folder)
        for number in range(rank, len(task.inputs), num_ranks):
            facts, is_accounted = there.get(f"{number:05d}.arrow"), number in accounted
            digest = task.inputs[number].digest
            if not (is_accounted and is_whole(store, names[number], digest, facts)):
                _make(store, names[number], number, task, encoder, is_accounted)
    with failing_together(gather):
        files = TokenFiles(store, names)
    files.forget_copies()  # every rank has them open
    held_out, pair_counts = files.held_out(), files.pair_counts()
    lengths = files.packed_lengths(make_objective(config.objective).sides)
    trains = ~held_out & (lengths > 0)
    if not trains.any():
        num_rejected = sum(_counted(store, names, "num_rejected"))
        raise InputError(
            f"No pair is left to train on: {int(pair_counts.sum()) + num_rejected} rows, "
            f"{num_rejected} rejected, {int(pair_counts[held_out].sum())} held out.",
            "Make more pairs, raise max_length or lower eval_fraction.",
        )
    _require_room(int(lengths.max()), config)
    if config.ranking_loss == "listwise" and (num_cut := sum(_counted(store, names, "num_cut"))):
        raise InputError(
            f"ranking_loss=listwise compares an answer with all that it is preferred to at once; "
            f"{num_cut} such lists are longer than max_tokens_per_item={config.item_tokens}.",
            "Raise max_tokens_per_item, or set ranking_loss=pairwise, which gives the same result "
            "however the pairs of a prompt are split.",
        )
    parts = _of_sources(task.inputs, files.num_items_of_file)
    mixture = Mixture(
        [int(trains[part].sum()) for part in parts.values()],
        [task.weight_of(source) for source in parts],
        config.seed,
        [int(pair_counts[part][trains[part]].sum()) for part in parts.values()],
    )
    tests = held_out & (lengths > 0)
    return TrainingData(
        ItemView(files, np.flatnonzero(trains)), ItemView(files, np.flatnonzero(tests)), mixture
    )


def _counted(store: Store, names: Sequence[str], count: str) -> list[int]:
    return [(read_record(store, name) or {})[count] for name in names]


def _require_room(longest: int, config: TrainingConfig) -> None:
    """Raise InputError when an item is longer than a micro-batch: before the first step, not then.

    A prompt and its answers lie in one sequence.
    """
    if longest > config.max_tokens_per_micro_batch:
        raise InputError(
            f"The longest packed item has {longest} tokens; "
            f"max_tokens_per_micro_batch={config.max_tokens_per_micro_batch}.",
            f"Set max_tokens_per_micro_batch={longest} or more (the result stays the same, and a "
            "training that has begun goes on), or lower max_tokens_per_item or max_length.",
        )


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


def _of_sources(inputs: Sequence[InputShard], sizes: Sequence[int]) -> dict[str, slice]:
    """Where the items of each source lie; sources lie one after the other."""
    parts: dict[str, slice] = {}
    start = 0
    for shard, size in zip(inputs, sizes, strict=True):
        before = parts.get(shard.source)
        parts[shard.source] = slice(before.start if before else start, start := start + size)
    return parts


def _make(
    store: Store, name: str, number: int, task: TrainingTask, encoder: Encoder, is_accounted: bool
) -> None:
    """Write the token file of input shard `number`, and account for its rows if nobody has."""
    shard = task.inputs[number]
    ledger = ShardLedger(store)
    writer = TokenFileWriter()
    used: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    of_items: Counter[str] = Counter(dict.fromkeys(("num_items", "num_split", "num_cut"), 0))
    rows = _encoded(shard, encoder, task.config)
    for _, group in groupby(rows, key=lambda encoded: _prompt_of(encoded[0])):
        pairs: list[EncodedItem] = []
        held_out = False
        for row, pair in group:
            if not isinstance(pair, EncodedItem):
                rejected.append(_rejected_row(row, task.stage, str(pair[0]), pair[1]))
                continue
            held_out = is_held_out(row, task.config)
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
            parts = split_item(join_pairs(pairs), task.config.item_tokens)
            for part in parts:
                writer.add(part, held_out)
            of_items.update(
                num_items=len(parts), num_split=len(parts) > 1, num_cut=num_lists_cut(parts)
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
