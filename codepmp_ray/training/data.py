"""Rows in, encoded pairs out: the same on every rank, with every unusable row accounted for.

Rows are tokenised once. Each rank encodes every n-th input shard into a token file of the stage's
folder; then all ranks read all files through memory maps. A file that is damaged, half written or
made of other rows is made anew, so it does not matter when a run was killed or with how many ranks
it goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
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
from codepmp_ray.preference.mixing import Mixture
from codepmp_ray.preference.packing import EncodedPair, Sides
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
_FORMAT = 2  # goes up when token files hold something else


class PairView(Sequence[EncodedPair]):
    """Some of the encoded pairs, made when they are asked for. `references` as in EncodedPair."""

    def __init__(
        self, files: TokenFiles, numbers: np.ndarray, references: np.ndarray | None = None
    ) -> None:
        self._files, self._numbers, self._references = files, numbers, references

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> EncodedPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedPair]: ...
    def __getitem__(self, index: int | slice) -> EncodedPair | list[EncodedPair]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        pair = self._files.pair(self._numbers[index])
        if self._references is None:
            return pair
        chosen, rejected = self._references[index].tolist()
        return replace(pair, reference=(chosen, rejected))

    def packed_lengths(self, sides: Sides) -> np.ndarray:
        """int64 [number of pairs]: tokens that `pack` makes of each; no pair is made for it."""
        return self._files.packed_lengths(sides)[self._numbers]

    def with_references(self, references: np.ndarray) -> PairView:
        """The same pairs with log-likelihoods, float64 [number of pairs, 2]."""
        return PairView(self._files, self._numbers, references)


@dataclass(frozen=True)
class TrainingData:
    """Encoded pairs of both splits, and how the sources of `train` are mixed."""

    train: PairView
    held_out: PairView
    mixture: Mixture


def load_training_data(task: TrainingTask, encoder: Encoder) -> TrainingData:
    """The pairs of the task; collective, and the same on every rank.

    Raises InputError on every rank when columns are missing or no pair is left to train on.
    """
    return load_pairs(task, encoder, dist.get_rank(), dist.get_world_size(), gather_objects)


def load_pairs(
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
    held_out = files.held_out()
    train = np.flatnonzero(~held_out)
    if not len(train):
        num_rejected = sum((read_record(store, name) or {})["num_rejected"] for name in names)
        raise InputError(
            f"No pair is left to train on: {len(files) + num_rejected} rows, {num_rejected} "
            f"rejected, {int(held_out.sum())} held out.",
            "Make more pairs, raise max_length or lower eval_fraction.",
        )
    _require_room(files, config)
    sizes = _train_sizes(task.inputs, files, held_out)
    weights = [task.weight_of(source) for source in sizes]
    return TrainingData(
        PairView(files, train),
        PairView(files, np.flatnonzero(held_out)),
        Mixture(list(sizes.values()), weights, config.seed),
    )


def _require_room(files: TokenFiles, config: TrainingConfig) -> None:
    """Raise InputError when a pair is longer than a micro-batch: before the first step, not then.

    Prompt, chosen and rejected lie in one sequence, and each answer with its prompt may have
    `max_length` tokens.
    """
    longest = int(files.packed_lengths(make_objective(config.objective).sides).max())
    if longest > config.max_tokens_per_micro_batch:
        raise InputError(
            f"The longest packed pair has {longest} tokens; "
            f"max_tokens_per_micro_batch={config.max_tokens_per_micro_batch}.",
            f"Set max_tokens_per_micro_batch={longest} or more (the result stays the same, and a "
            "training that has begun goes on), or lower max_length.",
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
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _train_sizes(
    inputs: Sequence[InputShard], files: TokenFiles, held_out: np.ndarray
) -> dict[str, int]:
    """Pairs to train on of each source; sources lie one after the other."""
    sizes: dict[str, int] = {}
    start = 0
    for shard, num_pairs in zip(inputs, files.num_pairs_of_file, strict=True):
        kept = num_pairs - int(held_out[start : start + num_pairs].sum())
        sizes[shard.source] = sizes.get(shard.source, 0) + kept
        start += num_pairs
    return sizes


def _make(
    store: Store, name: str, number: int, task: TrainingTask, encoder: Encoder, is_accounted: bool
) -> None:
    """Write the token file of input shard `number`, and account for its rows if nobody has."""
    shard = task.inputs[number]
    ledger = ShardLedger(store)
    writer = TokenFileWriter()
    used: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for row, pair in _encoded(shard, encoder, task.config):
        if not isinstance(pair, EncodedPair):
            rejected.append(_rejected_row(row, task.stage, str(pair[0]), pair[1]))
            continue
        held_out = is_held_out(row, task.config)
        writer.add(pair, held_out)
        used.append(
            {
                "pair_id": pair.pair_id,
                "source": shard.source,
                "split": "eval" if held_out else "train",
                "num_tokens": pair.num_tokens,
                "truncated": pair.truncated,
            }
        )
    counts = {"num_used": len(used), "num_rejected": len(rejected)}
    if is_accounted:
        _check_same(ledger, number, counts)
    else:
        tables = {
            "used": table_from_rows(used, USED),
            "rejected": table_from_rows(rejected, REJECTED),
        }
        stats = _stats(shard.source, used, rejected) | shard_stats({"rejected": tables["rejected"]})
        ledger.commit(number, len(used) + len(rejected), tables, stats)
    writer.write(store, name, shard.digest, counts)


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
    origin = row.get("problem_id") or row.get("source_id") or row_id(row)
    digest = hashlib.sha256(f"{config.seed}|{origin}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < config.eval_fraction


def _stats(source: str, used: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> dict:
    """Counts by source, for the stage's summary; zeros are left out."""
    counts = {
        "num_pairs": len(used),
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
