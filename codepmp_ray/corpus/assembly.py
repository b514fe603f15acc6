"""Extracted units + keep-list -> the corpus: shards of equal size, every row in exactly one.

All extracted rows, snippets and rejected ones, form one sequence (by unit, then ordinal). It is
cut after every `rows_per_shard`-th kept snippet, and each cut is one shard: its kept snippets, and
as rejected rows everything else that lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from codepmp_ray.corpus.deduplication import Decided
from codepmp_ray.corpus.extraction import Row, rejected_snippet
from codepmp_ray.corpus.fates import FATES, SampleLimit, final_fates, kept_per_unit, sample_limit
from codepmp_ray.corpus.selection import DUPLICATE, KEPT, NEAR_DUPLICATE
from codepmp_ray.records import REJECTED, SNIPPET, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.shard_markers import ShardCommit
from codepmp_ray.storage import open_store

_DETAILS = {
    DUPLICATE: (RejectReason.EXACT_DUPLICATE, "same code as {}"),
    NEAR_DUPLICATE: (RejectReason.NEAR_DUPLICATE, "nearly the code of {}"),
}


@dataclass(frozen=True)
class Piece:
    """One extracted unit, and where its part of the keep-list lies.

    `fates` is a file with the fates of the unit's whole chunk, whose first snippet has position
    `start`.
    """

    unit: int
    commit: ShardCommit
    fates: str
    start: int


@dataclass(frozen=True)
class ShardPlan:
    """One shard of the corpus; small enough to travel to the task that writes it.

    Attributes:
        skip: the shard begins behind so many kept snippets of the first piece; 0 at its beginning.
        take: it ends behind so many kept snippets of the last piece; None at its end.
    """

    shard_id: int
    pieces: tuple[Piece, ...]
    skip: int
    take: int | None
    limit: SampleLimit | None


@dataclass(frozen=True)
class Shard:
    """`tables` are SNIPPET ("snippets") and REJECTED ("rejected") rows, `num_input_rows` together;
    `sketches` the id and sketch of every kept snippet, for the keep-index."""

    tables: dict[str, pa.Table]
    num_input_rows: int
    sketches: pa.Table


def plan_shards(decided: Decided, max_snippets: int | None, rows_per_shard: int) -> list[ShardPlan]:
    """Cut the sequence into shards; at least one, which holds all rows if nothing was kept."""
    limit = sample_limit(decided.fates, decided.chunks, max_snippets)
    pieces = _pieces(decided)
    ends = np.cumsum(kept_per_unit(decided.fates, decided.chunks, limit))
    num_kept = int(ends[-1])
    plans = []
    begin, skip = 0, 0
    for shard_id, last in enumerate(range(rows_per_shard - 1, num_kept - 1, rows_per_shard)):
        unit = int(np.searchsorted(ends, last, side="right"))
        take = last + 1 - (int(ends[unit - 1]) if unit else 0)
        plans.append(ShardPlan(shard_id, tuple(pieces[begin : unit + 1]), skip, take, limit))
        begin, skip = unit, take
    plans.append(ShardPlan(len(plans), tuple(pieces[begin:]), skip, None, limit))
    return plans


def build_shard(
    extracted_uri: str, fates_uri: str, plan: ShardPlan, sketch_names: list[str]
) -> Shard:
    """One shard, from extracted units; `sketch_names` are the columns of `Shard.sketches`."""
    snippets, rejected, sketches = [SNIPPET.empty_table()], [REJECTED.empty_table()], []
    num_input_rows = 0
    store = open_store(extracted_uri)
    for number, piece in enumerate(plan.pieces):
        fates, winners, ordinals = _fates_of(fates_uri, piece, plan.limit)
        kept = ordinals[fates == KEPT]
        start, stop = 0, sum(piece.commit.num_rows.values())
        if number == 0 and plan.skip:
            start = int(kept[plan.skip - 1]) + 1
        if number == len(plan.pieces) - 1 and plan.take is not None:
            stop = int(kept[plan.take - 1]) + 1
        if start == stop:
            continue
        num_input_rows += stop - start
        here = (ordinals >= start) & (ordinals < stop)
        fates, winners = fates[here], winners.filter(pa.array(here))
        names = [*SNIPPET.names, "ordinal", *sketch_names]
        found = store.read_table(piece.commit.files["snippets"], names).filter(pa.array(here))
        is_kept = pa.array(fates == KEPT)
        snippets.append(found.filter(is_kept).select(SNIPPET.names))
        sketches.append(found.filter(is_kept).select(["snippet_id", *sketch_names]))
        dropped = _dropped_rows(
            found.select([*SNIPPET.names, "ordinal"]), fates, winners.to_pylist()
        )
        refused = store.read_table(piece.commit.files["rejected"], [*REJECTED.names, "ordinal"])
        place = refused["ordinal"].to_numpy()
        refused = refused.filter(pa.array((place >= start) & (place < stop)))
        merged = pa.concat_tables([dropped, refused.cast(dropped.schema)])
        rejected.append(merged.sort_by("ordinal").select(REJECTED.names))
    tables = {
        "snippets": pa.concat_tables(snippets).combine_chunks().cast(SNIPPET),
        "rejected": pa.concat_tables(rejected).combine_chunks().cast(REJECTED),
    }
    nothing = pa.table({"snippet_id": pa.array([], pa.string())})
    return Shard(tables, num_input_rows, pa.concat_tables(sketches) if sketches else nothing)


def _pieces(decided: Decided) -> list[Piece]:
    return [
        Piece(chunk.first_unit + i, commit, fates.files[FATES], chunk.start)
        for chunk, fates in zip(decided.chunks, decided.fates.commits(), strict=True)
        for i, commit in enumerate(chunk.commits)
    ]


def _fates_of(
    fates_uri: str, piece: Piece, limit: SampleLimit | None
) -> tuple[npt.NDArray[np.int8], pa.ChunkedArray, npt.NDArray[np.int64]]:
    """(fate, winner, ordinal) of each snippet of a unit, in order."""
    rows = _read_fates(fates_uri, piece.fates)
    units = rows["unit"].to_numpy()  # ascending
    low, high = (int(i) for i in np.searchsorted(units, [piece.unit, piece.unit + 1]))
    rows = rows.slice(low, high - low)
    positions = np.arange(piece.start + low, piece.start + high)
    return final_fates(rows, positions, limit), rows["winner"], rows["ordinal"].to_numpy()


# A chunk's fates serve many units, and its shards come one after another.
@lru_cache(maxsize=2)
def _read_fates(fates_uri: str, name: str) -> pa.Table:
    return open_store(fates_uri).read_table(name)


def _dropped_rows(
    snippets: pa.Table, fates: npt.NDArray[np.int8], winners: list[str | None]
) -> pa.Table:
    rows: list[Row] = []
    places = np.flatnonzero(fates != KEPT)
    for snippet, i in zip(
        snippets.take(pa.array(places)).to_pylist(), places.tolist(), strict=True
    ):
        reason, detail = RejectReason.OVER_MAX_SNIPPETS, "not in the sample"
        if fates[i] in _DETAILS:
            reason, detail = _DETAILS[int(fates[i])]
        row = rejected_snippet(snippet, reason, detail.format(winners[i]))
        rows.append({**row, "ordinal": snippet["ordinal"]})
    return table_from_rows(rows, REJECTED.append(pa.field("ordinal", pa.int64())))
