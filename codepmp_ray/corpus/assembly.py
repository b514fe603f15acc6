"""Extracted units + selection -> the corpus: shards of equal size, every row in exactly one.

All extracted rows, snippets and rejected ones, form one sequence (by unit, then ordinal). It is
cut after every `rows_per_shard`-th kept snippet, and each cut is one shard: its kept snippets, and
as rejected rows everything else that lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codepmp_ray.corpus.extraction import Row, rejected_snippet
from codepmp_ray.corpus.selection import DUPLICATE, KEPT, Selection
from codepmp_ray.ledger import ShardCommit, ShardLedger
from codepmp_ray.records import REJECTED, SNIPPET, RejectReason, table_from_rows
from codepmp_ray.storage import LocalStore


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) (ordinals) of one extracted unit, and what becomes of its snippets.

    `kept` and `duplicates` are ordinals; `winners` are the snippet ids that the duplicates equal.
    A snippet in neither is over `max_snippets`.
    """

    commit: ShardCommit
    start: int
    stop: int
    kept: tuple[int, ...]
    duplicates: tuple[int, ...]
    winners: tuple[str, ...]


@dataclass(frozen=True)
class ShardPlan:
    """One shard of the corpus; small enough to travel to the task that writes it."""

    shard_id: int
    segments: tuple[Segment, ...]

    @property
    def num_input_rows(self) -> int:
        return sum(segment.stop - segment.start for segment in self.segments)


@dataclass(frozen=True)
class SnippetIndex:
    """The columns of all extracted snippets that decisions need, in corpus order."""

    commits: tuple[ShardCommit, ...]
    unit: np.ndarray  # position in `commits`
    ordinal: np.ndarray
    snippet_id: pa.ChunkedArray | pa.Array
    keys: bytes  # 16 per snippet


def read_index(extracted: ShardLedger) -> SnippetIndex:
    """The index of every committed unit; reads three columns and no code."""
    commits = tuple(extracted.commits())
    columns = ["ordinal", "snippet_id", "dedup_key"]
    tables = [extracted.store.read_table(c.files["snippets"], columns) for c in commits]
    table = pa.concat_tables(tables)
    return SnippetIndex(
        commits=commits,
        unit=np.repeat(np.arange(len(tables)), [t.num_rows for t in tables]),
        ordinal=table["ordinal"].to_numpy(),
        snippet_id=table["snippet_id"],
        keys=b"".join(table["dedup_key"].to_pylist()),
    )


def plan_shards(index: SnippetIndex, selection: Selection, rows_per_shard: int) -> list[ShardPlan]:
    """Cut the sequence into shards; at least one, which holds all rows if nothing was kept."""
    kept = np.flatnonzero(selection.fates == KEPT)
    last_of_shards = kept[rows_per_shard - 1 : -1 : rows_per_shard]
    cuts = [(int(index.unit[i]), int(index.ordinal[i]) + 1) for i in last_of_shards]
    end = (len(index.commits) - 1, _num_rows(index.commits[-1]))
    borders = [(0, 0), *cuts, end]
    return [
        ShardPlan(shard_id, _segments(index, selection, borders[shard_id], borders[shard_id + 1]))
        for shard_id in range(len(borders) - 1)
    ]


def build_shard(store: LocalStore, plan: ShardPlan) -> dict[str, pa.Table]:
    """Tables "snippets" (SNIPPET) and "rejected" (REJECTED) of one shard, from extracted units."""
    snippets = [SNIPPET.empty_table()]
    rejected = [REJECTED.empty_table()]
    for segment in plan.segments:
        found = _read_range(store, segment, "snippets")
        is_kept = np.isin(found["ordinal"].to_numpy(), segment.kept)
        snippets.append(found.filter(pa.array(is_kept)).select(SNIPPET.names))
        dropped = _dropped_rows(found.filter(pa.array(~is_kept)), segment)
        refused = _read_range(store, segment, "rejected")
        merged = pa.concat_tables([dropped, refused.cast(dropped.schema)])
        rejected.append(merged.sort_by("ordinal").select(REJECTED.names))
    return {
        "snippets": pa.concat_tables(snippets).combine_chunks().cast(SNIPPET),
        "rejected": pa.concat_tables(rejected).combine_chunks().cast(REJECTED),
    }


def _segments(
    index: SnippetIndex, selection: Selection, begin: tuple[int, int], end: tuple[int, int]
) -> tuple[Segment, ...]:
    segments = []
    for unit in range(begin[0], end[0] + 1):
        commit = index.commits[unit]
        start = begin[1] if unit == begin[0] else 0
        stop = end[1] if unit == end[0] else _num_rows(commit)
        if start == stop:
            continue
        low, high = np.searchsorted(index.unit, [unit, unit + 1])
        offsets = np.searchsorted(index.ordinal[low:high], [start, stop])
        here = np.arange(low + offsets[0], low + offsets[1])
        doubles = here[selection.fates[here] == DUPLICATE]
        kept = here[selection.fates[here] == KEPT]
        segments.append(
            Segment(
                commit=commit,
                start=start,
                stop=stop,
                kept=tuple(index.ordinal[kept].tolist()),
                duplicates=tuple(index.ordinal[doubles].tolist()),
                winners=tuple(index.snippet_id.take(selection.first[doubles]).to_pylist()),
            )
        )
    return tuple(segments)


def _dropped_rows(dropped: pa.Table, segment: Segment) -> pa.Table:
    winners = dict(zip(segment.duplicates, segment.winners, strict=True))
    rows: list[Row] = []
    for snippet in dropped.to_pylist():
        winner = winners.get(snippet["ordinal"])
        if winner is None:
            row = rejected_snippet(snippet, RejectReason.OVER_MAX_SNIPPETS, "not in the sample")
        else:
            reason = RejectReason.EXACT_DUPLICATE
            row = rejected_snippet(snippet, reason, f"same code as {winner}")
        rows.append({**row, "ordinal": snippet["ordinal"]})
    return table_from_rows(rows, REJECTED.append(pa.field("ordinal", pa.int64())))


def _read_range(store: LocalStore, segment: Segment, table: str) -> pa.Table:
    found = store.read_table(segment.commit.files[table])
    ordinal = found["ordinal"].to_numpy()
    return found.filter(pa.array((ordinal >= segment.start) & (ordinal < segment.stop)))


def _num_rows(commit: ShardCommit) -> int:
    return sum(commit.num_rows.values())
