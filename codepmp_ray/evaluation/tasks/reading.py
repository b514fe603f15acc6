"""Numbered rows of a task: from a package, a file, a URI or the hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.tasks.base import HubSet, PreferenceTask, ProblemTask, Row
from codepmp_ray.io.listing import data_files
from codepmp_ray.io.rows import read_whole
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Numbered, Reject

AnyTask = ProblemTask | PreferenceTask


def place_of(task: AnyTask, path: str | None) -> str:
    """Where the rows are, for a person."""
    if path is not None:
        return path
    return f"{task.hub.hub_id} ({task.hub.split})" if task.hub else "its package"


def read_rows(task: AnyTask, path: str | None) -> Iterator[Numbered]:
    """The rows of the task. Raises InputError when they cannot be read.

    A damaged line of a set of problems is an error; of pairs it is a reject among the rows.
    """
    if path is not None and isinstance(task, PreferenceTask):
        setting = f"the set {task.name}: path"
        yield from numbered(setting, path) if task.file_column is None else _by_file(
            setting, path, task.file_column
        )  # fmt: skip
        return
    yield from enumerate(_rows(task, path))


def _by_file(setting: str, path: str, column: str) -> Iterator[Numbered]:
    """Rows of all files, numbered on, with the beginning of their file's name in `column`."""
    first = 0
    for file in data_files(setting, path):
        name = str(file).rpartition("/")[2].partition(".")[0].partition("_")[0]
        number = first
        for item in numbered(setting, str(file)):
            if isinstance(item, Reject):
                number = first + item.index
                yield replace(item, index=number)
            else:
                number = first + item[0]
                yield number, {column: name, **item[1]}
        first = number + 1


def _rows(task: AnyTask, path: str | None) -> Iterator[Row]:
    packaged = task.packaged if isinstance(task, ProblemTask) else None
    if path is not None:
        return read_whole(f"the task {task.name}: path", path)
    if packaged is not None:
        return iter(packaged())
    if task.hub is None:
        raise ConfigError(f"The task {task.name} has no source.", "Name a file.")
    return _hub_rows(task, task.hub)


def _hub_rows(task: AnyTask, hub: HubSet) -> Iterator[Row]:
    """From the network or the local cache. Raises InputError where neither has it."""
    from datasets import load_dataset

    setting = "candidates.task_path" if isinstance(task, ProblemTask) else "accuracy.tasks: path"
    options = {"data_dir" if hub.is_folder else "name": hub.subset} if hub.subset else {}
    try:
        # Its overloads do not know of options that are given by name.
        yield from cast(Any, load_dataset)(
            hub.hub_id, split=hub.split, revision=hub.revision, **options
        )
    except Exception as error:  # the hub's client raises dozens of kinds, not all of them its own
        raise InputError(
            f"The task {task.name} cannot be read from the hub as {hub.hub_id} "
            f"({' '.join(str(error).split())[:200]}).",
            f"Check the network, or name a local file ({setting}).",
        ) from error
