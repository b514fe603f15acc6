"""Extracted units + selection -> the corpus: shards of equal size, every row in exactly one.

All extracted rows, snippets and rejected ones, form one sequence (by unit, then ordinal). It is
cut after every `rows_per_shard`-th kept snippet, and each cut is one shard: its kept snippets, and
as rejected rows everything else that lies between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codepmp_ray.config.corpus import NearDuplicateConfig
from codepmp_ray.corpus.clusters import first_of_clusters
from codepmp_ray.corpus.extraction import Row, rejected_snippet
from codepmp_ray.corpus.keep_index import SIGNATURE, KeepIndex, band_names, signature_matrix
from codepmp_ray.corpus.minhash import Sketches
from codepmp_ray.corpus.selection import DUPLICATE, KEPT, NEAR_DUPLICATE, Selection
from codepmp_ray.ledger import ShardCommit, ShardLedger
from codepmp_ray.records import REJECTED, SNIPPET, RejectReason, table_from_rows
from codepmp_ray.storage import Store

# Fewer take less memory, 8 bytes per snippet each; more open the files less often.
_BANDS_AT_ONCE = 8


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) (ordinals) of one extracted unit, and what becomes of its snippets.

    `kept`, `duplicates` and `near` are ordinals; `winners` and `near_winners` are the ids of the
    snippets that the duplicates equal, and that the near-duplicates are alike. A snippet in none
    of them is over `max_snippets`.
    """

    commit: ShardCommit
    start: int
    stop: int
    kept: tuple[int, ...]
    duplicates: tuple[int, ...]
    winners: tuple[str, ...]
    near: tuple[int, ...] = ()
    near_winners: tuple[str, ...] = ()


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


def first_near_duplicates(
    extracted: ShardLedger,
    index: SnippetIndex,
    settings: NearDuplicateConfig,
    earlier: KeepIndex,
) -> np.ndarray:
    """Per snippet the first of its cluster, as `select_snippets` takes it.

    Reads a few bands at a time, so that not all keys are held at once.
    """
    num_earlier = len(earlier.snippet_ids)
    column = _read_columns(extracted, index, [SIGNATURE])[SIGNATURE]
    signatures = np.concatenate([earlier.signatures, signature_matrix(column, settings)])
    bands = (
        np.concatenate([before, keys])
        for before, keys in zip(earlier.bands, _read_bands(extracted, index, settings), strict=True)
    )
    return first_of_clusters(bands, signatures, settings.min_similarity)[num_earlier:] - num_earlier


def kept_sketches(
    extracted: ShardLedger, index: SnippetIndex, kept: np.ndarray, settings: NearDuplicateConfig
) -> Sketches:
    """Sketches of the snippets at the positions `kept`."""
    keys = [band[kept] for band in _read_bands(extracted, index, settings)]
    column = _read_columns(extracted, index, [SIGNATURE])[SIGNATURE]
    signatures = signature_matrix(column, settings)
    return Sketches(np.stack(keys, axis=1), signatures[kept])


def plan_shards(
    index: SnippetIndex,
    selection: Selection,
    rows_per_shard: int,
    earlier_ids: tuple[str, ...] = (),
) -> list[ShardPlan]:
    """Cut the sequence into shards; at least one, which holds all rows if nothing was kept.

    `earlier_ids` are the snippets that negative positions in `selection.first` mean.
    """
    kept = np.flatnonzero(selection.fates == KEPT)
    last_of_shards = kept[rows_per_shard - 1 : -1 : rows_per_shard]
    cuts = [(int(index.unit[i]), int(index.ordinal[i]) + 1) for i in last_of_shards]
    end = (len(index.commits) - 1, _num_rows(index.commits[-1]))
    borders = [(0, 0), *cuts, end]
    return [
        ShardPlan(
            shard_id,
            _segments(index, selection, borders[shard_id], borders[shard_id + 1], earlier_ids),
        )
        for shard_id in range(len(borders) - 1)
    ]


def build_shard(store: Store, plan: ShardPlan) -> dict[str, pa.Table]:
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
    index: SnippetIndex,
    selection: Selection,
    begin: tuple[int, int],
    end: tuple[int, int],
    earlier_ids: tuple[str, ...],
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
        near = here[selection.fates[here] == NEAR_DUPLICATE]
        kept = here[selection.fates[here] == KEPT]
        segments.append(
            Segment(
                commit=commit,
                start=start,
                stop=stop,
                kept=tuple(index.ordinal[kept].tolist()),
                duplicates=tuple(index.ordinal[doubles].tolist()),
                winners=tuple(index.snippet_id.take(selection.first[doubles]).to_pylist()),
                near=tuple(index.ordinal[near].tolist()),
                near_winners=tuple(
                    earlier_ids[first] if first < 0 else index.snippet_id[first].as_py()
                    for first in selection.first[near].tolist()
                ),
            )
        )
    return tuple(segments)


def _dropped_rows(dropped: pa.Table, segment: Segment) -> pa.Table:
    winners = dict(zip(segment.duplicates, segment.winners, strict=True))
    near_winners = dict(zip(segment.near, segment.near_winners, strict=True))
    rows: list[Row] = []
    for snippet in dropped.to_pylist():
        reason, detail = RejectReason.OVER_MAX_SNIPPETS, "not in the sample"
        if winner := winners.get(snippet["ordinal"]):
            reason, detail = RejectReason.EXACT_DUPLICATE, f"same code as {winner}"
        elif winner := near_winners.get(snippet["ordinal"]):
            reason, detail = RejectReason.NEAR_DUPLICATE, f"nearly the code of {winner}"
        row = rejected_snippet(snippet, reason, detail)
        rows.append({**row, "ordinal": snippet["ordinal"]})
    return table_from_rows(rows, REJECTED.append(pa.field("ordinal", pa.int64())))


def _read_range(store: Store, segment: Segment, table: str) -> pa.Table:
    schema = SNIPPET if table == "snippets" else REJECTED
    found = store.read_table(segment.commit.files[table], [*schema.names, "ordinal"])
    ordinal = found["ordinal"].to_numpy()
    return found.filter(pa.array((ordinal >= segment.start) & (ordinal < segment.stop)))


def _read_bands(
    extracted: ShardLedger, index: SnippetIndex, settings: NearDuplicateConfig
) -> Iterator[np.ndarray]:
    """The keys of one band after the other, of all extracted snippets in corpus order."""
    names = band_names(settings)
    for start in range(0, len(names), _BANDS_AT_ONCE):
        group = names[start : start + _BANDS_AT_ONCE]
        table = _read_columns(extracted, index, group)
        yield from (table[name].to_numpy() for name in group)


def _read_columns(extracted: ShardLedger, index: SnippetIndex, names: list[str]) -> pa.Table:
    """Columns of all extracted snippets, in corpus order."""
    parts = [extracted.store.read_table(c.files["snippets"], names) for c in index.commits]
    return pa.concat_tables(parts)


def _num_rows(commit: ShardCommit) -> int:
    return sum(commit.num_rows.values())
