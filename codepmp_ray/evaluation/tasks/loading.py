"""From a task's rows, on the hub or in a file, to problems or pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.tasks.base import (
    BadRow,
    HubSet,
    PreferencePair,
    PreferenceTask,
    Problem,
    ProblemTask,
    Row,
)
from codepmp_ray.io.listing import data_files
from codepmp_ray.io.rows import read_whole
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Numbered, Reject
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason


def read_problems(task: ProblemTask, path: str | None = None) -> Iterator[Problem]:
    """The problems of a task, from its own source or a file of its rows.

    A benchmark with holes is another benchmark: the first row that is no problem, or whose id
    another one has, raises InputError with the file, the row's number from 1 and what to do.
    """
    place = place_of(task, path)
    seen: dict[str, int] = {}
    for number, row in enumerate(read_rows(task, path), start=1):
        if isinstance(row, Reject):
            raise _bad_row(task, place, number, row.detail)
        try:
            problem = task.problem(row[1], number - 1)
        except BadRow as error:
            name = str(row[1].get("task_id", ""))[:40]
            raise _bad_row(task, place, number, str(error), name) from error
        first = seen.setdefault(problem.problem_id, number)
        if first != number:
            detail = f"the id {problem.problem_id!r} is that of row {first}, too"
            raise _bad_row(task, place, number, detail)
        yield problem
    if not seen:
        raise InputError(f"The task {task.name} has no problems in {place}.")
    if task.num_problems not in (None, len(seen)):
        raise InputError(
            f"{task.title} has {task.num_problems} problems, {place} holds {len(seen)}.",
            "Name the whole set (candidates.task_path), or null for the task's own source.",
        )


@dataclass(frozen=True)
class PreferenceSet:
    """The pairs of a task, and the rows that are none.

    Attributes:
        origin: the file or hub set.
        pairs: in the order of the rows; ids are unique.
        rejects: with row numbers from 0.
    """

    task: PreferenceTask
    origin: str
    pairs: list[PreferencePair]
    rejects: list[Reject]

    @property
    def reject_counts(self) -> dict[str, int]:
        """Number of rejects by reason."""
        return dict(sorted(Counter(str(reject.reason) for reject in self.rejects).items()))


def load_preferences(
    task: PreferenceTask, path: str | None = None, max_rows: int | None = None
) -> PreferenceSet:
    """The pairs of a task, from the hub or a file or folder of its rows; of the first `max_rows`.

    Raises InputError when it cannot be read, lacks columns or gives no pair.
    """
    origin = place_of(task, path)
    rejects: list[Reject] = []
    pairs: list[PreferencePair] = []
    ids: Counter[str] = Counter()
    read = _RowReader(task, origin)
    for item in task.pairs(read.rows(islice(read_rows(task, path), max_rows))):
        if isinstance(item, Reject):
            rejects.append(item)
            continue
        if not item.chosen.strip() or not item.rejected.strip():
            # Most builders leave that to the encoder, which is not asked here.
            side = "chosen" if not item.chosen.strip() else "rejected"
            rejects.append(Reject(read.index, RejectReason.EMPTY, f"{side} is blank"))
            continue
        # A set without ids may hold one pair twice; it then counts twice, as in the set's own use.
        ids[item.pair_id] += 1
        if ids[item.pair_id] > 1:
            item = replace(item, pair_id=stable_id(item.pair_id, str(ids[item.pair_id])))
        pairs.append(item)
    if not pairs:
        first = f" (first: row {rejects[0].index + 1}, {rejects[0].detail})" if rejects else ""
        raise InputError(
            f"{task.title}: {origin} gives no pair, {len(rejects)} rows were rejected{first}.",
            f"docs/evaluation.md says what a row of {task.name} holds.",
        )
    return PreferenceSet(task, origin, pairs, rejects)


class _RowReader:
    """Hands rows on, once the first one has the columns of the set; `index` is the last row's."""

    def __init__(self, task: PreferenceTask, origin: str) -> None:
        self._task, self._origin = task, origin
        self._is_first = True
        self.index = 0

    def rows(self, rows: Iterator[Numbered]) -> Iterator[Numbered]:
        for item in rows:
            if not isinstance(item, Reject):
                self.index, row = item
                if self._is_first and not any(names <= row.keys() for names in self._task.columns):
                    raise self._other_set(row)
                self._is_first = False
            yield item

    def _other_set(self, row: Row) -> InputError:
        needed = " or ".join(", ".join(sorted(names)) for names in self._task.columns)
        return InputError(
            f"{self._task.title}: row {self.index + 1} of {self._origin} has the columns "
            f"{', '.join(sorted(row))}, but needs {needed}.",
            "Name a file of this set.",
        )


def _bad_row(
    task: ProblemTask, place: str, number: int, problem: str, name: str = ""
) -> InputError:
    shown = f" ({name!r})" if name else ""
    return InputError(
        f"Row {number}{shown} of {place} is no problem of {task.title}: {problem}.",
        "Mend or take out the row; docs/evaluation.md says what a row holds.",
    )


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
