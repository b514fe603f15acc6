"""Tables beside a pool: rewards and grades that other jobs wrote about its candidates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pool_rows import PoolRow, finite
from codepmp_ray.preference.sources.reading import numbered
from codepmp_ray.preference.sources.rows import Reject, Row

Scores = list[float | None]


@dataclass
class RewardTable:
    """Rewards of one model, by candidate, or by row with one for each of its answers.

    Attributes:
        by_row: by the row's id; what has two different lists is in `ambiguous` instead.
        by_place: by "<file>#<number of the row>", with the row's id.
    """

    by_candidate: dict[str, float | None] = field(default_factory=dict)
    by_row: dict[str, Scores] = field(default_factory=dict)
    by_place: dict[str, tuple[str, Scores]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)

    def of(self, row: PoolRow, place: str) -> dict[int, float | None]:
        """Of the row's answers, by their place in it; without what the table does not have.

        A row at the same place counts if it is also called alike, or has no other name.
        """
        row_id, scores = self.by_place.get(place, ("", None))
        if scores is None or row_id not in (place, *row.names):
            found = [self.by_row[name] for name in row.names if name in self.by_row]
            scores = found[0] if found else None
        if scores is not None and len(scores) == row.num_values:
            return dict(enumerate(scores))
        return {a.place: self.by_candidate.get(a.candidate_id or "") for a in row.answers}

    def add(self, row: Row) -> bool:
        """Whether the row has rewards at all."""
        candidate_id, row_id = row.get("candidate_id"), row.get("row_id")
        if isinstance(candidate_id, str) and "score" in row:
            self._add(self.by_candidate, candidate_id, finite(row["score"]))
            return True
        if not isinstance(row_id, str) or not isinstance(row.get("scores"), list):
            return False
        scores = [finite(score) for score in row["scores"]]
        if isinstance(row.get("place"), str):
            self.by_place[row["place"]] = (row_id, scores)
        self._add(self.by_row, row_id, scores)
        return True

    def _add(self, table: dict[str, Any], name: str, value: Any) -> None:
        if name in self.ambiguous:
            return
        if table.setdefault(name, value) != value:
            del table[name]
            self.ambiguous.add(name)


def read_rewards(name: str, path: str) -> RewardTable:
    """Raises InputError for a table that cannot be read or has no rewards in any row."""
    table = RewardTable()
    num_read = 0
    for item in numbered(f"the rewards of {name!r}: path", path):
        num_read += not isinstance(item, Reject) and table.add(item[1])
    if not num_read:
        raise InputError(
            f"{path}, the rewards of {name!r}, has no row with row_id and scores, or with "
            "candidate_id and score.",
            "Name the folder scores/ that jobs.score or jobs.evaluate wrote.",
        )
    return table


def read_grades(path: str) -> dict[str, Row]:
    """Grades by candidate. Raises InputError for a table that cannot be read or has none."""
    grades: dict[str, Row] = {}
    for item in numbered("pool_statistics.grades_path", path):
        if not isinstance(item, Reject) and isinstance(item[1].get("candidate_id"), str):
            grades[item[1]["candidate_id"]] = item[1]
    if not grades:
        raise InputError(
            f"{path}, the grades, has no row with a candidate_id.",
            "Name the folder grades/ that jobs.grade wrote.",
        )
    return grades
