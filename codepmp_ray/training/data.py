"""Rows in, encoded pairs out: the same on every rank, with every unusable row accounted for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import InputError
from codepmp_ray.preference.encoding import encode_pair, row_id
from codepmp_ray.preference.packing import EncodedPair
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import REJECTED, table_from_rows

USED = pa.schema([("pair_id", pa.string()), ("split", pa.string()), ("num_tokens", pa.int64())])


@dataclass(frozen=True)
class TrainingData:
    """Encoded pairs of both splits, and the tables that account for every input row."""

    train: list[EncodedPair]
    held_out: list[EncodedPair]
    used: pa.Table
    rejected: pa.Table

    @property
    def num_rows(self) -> int:
        return self.used.num_rows + self.rejected.num_rows


def encode_rows(
    rows: list[dict[str, Any]], encoder: Encoder, config: TrainingConfig, stage: str
) -> TrainingData:
    """Encode TRL-format rows and split them.

    The split is a function of the row's origin (problem, else source file, else pair): rows of one
    origin never lie on both sides.

    Raises InputError when required columns are missing or no pair is left to train on.
    """
    if rows and (lacking := {"prompt", "chosen", "rejected"} - set(rows[0])):
        raise InputError(
            f"The pairs lack the columns {sorted(lacking)}; they have {sorted(rows[0])}.",
            "Give a set in TRL preference format.",
        )
    train: list[EncodedPair] = []
    held_out: list[EncodedPair] = []
    used: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for row in rows:
        pair = encode_pair(row, encoder, config.max_length, config.overflow)
        if not isinstance(pair, EncodedPair):
            reason, detail = pair
            rejected.append(_rejected_row(row, stage, str(reason), detail))
            continue
        split = "eval" if _is_held_out(row, config) else "train"
        (held_out if split == "eval" else train).append(pair)
        used.append({"pair_id": pair.pair_id, "split": split, "num_tokens": pair.num_tokens})
    if not train:
        raise InputError(
            f"No pair is left to train on: {len(rows)} rows, {len(rejected)} rejected, "
            f"{len(held_out)} held out.",
            "Make more pairs, raise max_length or lower eval_fraction.",
        )
    return TrainingData(
        train, held_out, table_from_rows(used, USED), table_from_rows(rejected, REJECTED)
    )


def _is_held_out(row: dict[str, Any], config: TrainingConfig) -> bool:
    origin = row.get("problem_id") or row.get("source_id") or row_id(row)
    digest = hashlib.sha256(f"{config.seed}|{origin}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < config.eval_fraction


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
