"""Files of threads: a thread is one row with a question and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codepmp_ray.config.synthesis import ThreadsConfig
from codepmp_ray.io import shards
from codepmp_ray.io.shards import Piece, RowSource
from codepmp_ray.storage import Store


def stored_plan(store: Store, threads: ThreadsConfig) -> list[Piece]:
    """The stage's pieces; see `shards.stored_plan`."""
    return shards.stored_plan(store, _source(threads))


def read_piece(piece: Piece, threads: ThreadsConfig) -> Iterator[tuple[int, Any]]:
    """(index, row as a dict or UnreadableRow) for each row of the piece, exactly once."""
    return shards.read_piece(piece, _source(threads))


def _source(threads: ThreadsConfig) -> RowSource:
    return RowSource(
        "synthesis.threads",
        threads.path or "",
        tuple(threads.columns()),
        ((threads.question_column,), (threads.answers_column,)),
        threads.rows_per_shard,
        "threads.json",
    )
