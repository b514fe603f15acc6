"""From a task's rows, on the hub or in a file, to problems or pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.tasks.base import (
    BadRow,
    PreferencePair,
    PreferenceTask,
    Problem,
    ProblemTask,
    Row,
)
from codepmp_ray.evaluation.tasks.reading import place_of, read_rows
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
