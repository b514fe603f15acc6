"""Rows of evaluation tasks: a file, or a hub dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codepmp_ray.corpus.evaluation_files import UnreadableSet, read_evaluation_rows
from codepmp_ray.errors import InputError


def read_task_rows(task: str, path: str) -> Iterator[dict[str, Any]]:
    """Rows of a file at a path or URI. Raises InputError that names file, line and cause."""
    try:
        yield from read_evaluation_rows(path)
    except UnreadableSet as error:
        raise InputError(
            f"The file {path} of the task {task} cannot be read: {error}.",
            "Name a JSON lines (.jsonl, also .gz and .zst) or Parquet file; in a cluster it must "
            "lie on storage that every node sees.",
        ) from error


def read_hub_rows(task: str, hub_id: str, subset: str) -> Iterator[dict[str, Any]]:
    """Rows of all splits of a hub dataset, from the network or the local cache.

    Raises InputError where neither has it.
    """
    from datasets import load_dataset

    try:
        parts: Any = load_dataset(hub_id, subset)
        for name in sorted(parts):
            yield from parts[name]
    except Exception as error:  # the hub's client raises dozens of kinds, not all of them its own
        raise InputError(
            f"The task {task} cannot be read from the hub as {hub_id} "
            f"({' '.join(str(error).split())[:200]}).",
            "Check the network, or name a local file (candidates.task_path).",
        ) from error
