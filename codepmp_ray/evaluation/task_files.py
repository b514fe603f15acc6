"""Rows of evaluation tasks: local JSON lines (plain, .gz, .zst) or Parquet, or a hub dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.errors import InputError


def read_task_rows(task: str, path: str) -> Iterator[dict[str, Any]]:
    """Rows of a local file, in its order. Raises InputError that names file, line and cause."""
    file = Path(path).expanduser()
    try:
        if file.suffix == ".parquet":
            yield from pq.read_table(file).to_pylist()
            return
        # Arrow opens .gz and .zst by their name.
        with pa.input_stream(str(file), compression="detect") as stream:
            lines = stream.read().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise _unreadable(task, path, str(error)) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _unreadable(task, path, f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise _unreadable(task, path, f"line {number} is no JSON object")
        yield row


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


def _unreadable(task: str, path: str, problem: str) -> InputError:
    return InputError(
        f"The file {path} of the task {task} cannot be read: {' '.join(problem.split())[:200]}.",
        "Name a JSON lines (.jsonl, also .gz and .zst) or Parquet file; in a cluster it must lie "
        "on storage that every node sees.",
    )
