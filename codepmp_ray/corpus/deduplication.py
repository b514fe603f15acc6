"""Exact and near-duplicates of all extracted snippets: who stays, written down chunk by chunk.

Two ways to the same keep-list. Up to `max_rows_in_process` snippets the job's own process decides,
in about 200 bytes per snippet. More go through rounds of tasks (`rounds`), one for exact duplicates
and one per band of the sketches; what is left for this process are the edges between
near-duplicates, joined by `Forest` in about 60 bytes per member of a cluster. Every task commits
what it made, so a job that is killed goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from codepmp_ray.config.corpus import CorpusConfig, NearDuplicateConfig
from codepmp_ray.corpus.clusters import Forest, first_of_clusters
from codepmp_ray.corpus.fates import fates_of_losses, fates_of_selection
from codepmp_ray.corpus.keep_index import (
    SIGNATURE,
    TABLE,
    band_names,
    earlier_indexes,
    load_keep_indexes,
    signature_matrix,
)
from codepmp_ray.corpus.layout import Chunk, Positions, make_chunks, renumbered
from codepmp_ray.corpus.rounds import (
    EXACT,
    LOSSES,
    compare_band,
    compare_exact,
    edges_in_blocks,
    losses_of_chunk,
    scatter_band,
    scatter_exact,
)
from codepmp_ray.corpus.selection import select_snippets
from codepmp_ray.json_records import stored_record
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import open_store

# Runs a function on each item, in any order and on any machine; the text says what for.
RunTasks = Callable[[str, Callable[[Any], None], Sequence[Any]], None]
_PLAN = "plan.json"
_COPIES, _CLUSTERS, _FATES, _LOSSES = "copies", "clusters", "fates", "losses"
# Fewer take less memory, 8 bytes per snippet each; more open the files less often.
_BANDS_AT_ONCE = 8
_EDGES_AT_ONCE = 50_000_000


@dataclass(frozen=True)
class Decided:
    """The keep-list: `fates` has one shard per chunk, see `fates`."""

    chunks: list[Chunk]
    fates: ShardLedger


def deduplicate(corpus: CorpusConfig, uri: str, extracted_uri: str, run: RunTasks) -> Decided:
    """Decide about every snippet of the ledger at `extracted_uri`; what is made lies at `uri`."""
    extracted = ShardLedger(open_store(extracted_uri))
    settings = corpus.deduplication
    plan = _stored_plan(
        uri,
        {
            "rows_per_chunk": settings.rows_per_chunk,
            "rows_per_partition": settings.rows_per_partition,
            "max_rows_in_process": settings.max_rows_in_process,
        },
    )
    chunks = make_chunks(extracted, extracted_uri, "snippets", plan["rows_per_chunk"])
    fates = _ledger(uri, _FATES)
    if not fates.missing_ids(len(chunks)):
        return Decided(chunks, fates)
    earlier = _earlier_chunks(corpus.near_duplicates, plan["rows_per_chunk"])
    num_rows = sum(chunk.num_rows for chunk in [*earlier, *chunks])
    if num_rows <= plan["max_rows_in_process"]:
        _decide_here(corpus, chunks, fates)
    else:
        num_partitions = -(-num_rows // plan["rows_per_partition"])
        _decide_over_the_cluster(corpus, uri, earlier, chunks, num_partitions, run)
    return Decided(chunks, fates)


def _decide_here(corpus: CorpusConfig, chunks: list[Chunk], fates: ShardLedger) -> None:
    near = corpus.near_duplicates
    columns = ["ordinal", "snippet_id", "dedup_key"]
    rows = pa.concat_tables([chunk.read(columns) for chunk in chunks])
    first_near, ids, num_earlier = None, rows["snippet_id"], 0
    if near.enabled:
        earlier = load_keep_indexes(near)
        num_earlier = len(earlier.snippet_ids)
        signatures = pa.concat_tables([chunk.read([SIGNATURE]) for chunk in chunks])[SIGNATURE]
        bands = (
            np.concatenate([before, keys])
            for before, keys in zip(earlier.bands, _bands(chunks, near), strict=True)
        )
        first = first_of_clusters(
            bands,
            np.concatenate([earlier.signatures, signature_matrix(signatures, near)]),
            near.min_similarity,
        )
        first_near = first[num_earlier:] - num_earlier
        ids = pa.chunked_array([*earlier.snippet_ids.chunks, *ids.chunks], pa.string())
    selection = select_snippets(
        b"".join(rows["dedup_key"].to_pylist()),
        corpus.max_snippets,
        corpus.sample_seed,
        first_near,
    )
    ordinals = rows["ordinal"].to_numpy()
    for chunk in chunks:
        _commit(
            fates, chunk.number, fates_of_selection(chunk, selection, ordinals, ids, num_earlier)
        )


def _bands(chunks: list[Chunk], near: NearDuplicateConfig) -> Iterator[npt.NDArray[np.uint64]]:
    """The keys of one band after the other, of all snippets in corpus order."""
    names = band_names(near)
    for start in range(0, len(names), _BANDS_AT_ONCE):
        group = names[start : start + _BANDS_AT_ONCE]
        table = pa.concat_tables([chunk.read(group) for chunk in chunks])
        yield from (table[name].to_numpy() for name in group)


def _decide_over_the_cluster(
    corpus: CorpusConfig,
    uri: str,
    earlier: list[Chunk],
    chunks: list[Chunk],
    num_partitions: int,
    run: RunTasks,
) -> None:
    near = corpus.near_duplicates
    starts = np.array([chunk.start for chunk in chunks], dtype=np.int64)
    _round(uri, EXACT, partial(_scatter_exact, uri, num_partitions), chunks,
           partial(_compare_exact, uri, starts), num_partitions, run)  # fmt: skip
    _run_missing(f"{EXACT}: copies", _ledger(uri, _COPIES), partial(_collect_copies, uri), chunks,
                 run)  # fmt: skip
    for band in band_names(near):
        _round(uri, band, partial(_scatter_band, uri, band, len(earlier), num_partitions),
               renumbered([*earlier, *chunks]), partial(_compare_band, uri, band, near),
               num_partitions, run)  # fmt: skip
    if _ledger(uri, _CLUSTERS).missing_ids(len(chunks)):
        _join_clusters(uri, band_names(near), chunks)
    seed = corpus.sample_seed if corpus.max_snippets is not None else None
    _run_missing("fates", _ledger(uri, _FATES), partial(_write_fates, uri, seed), chunks, run)


def _round(
    uri: str,
    name: str,
    scatter: Callable[[Chunk], None],
    chunks: list[Chunk],
    compare: Callable[[int], None],
    num_partitions: int,
    run: RunTasks,
) -> None:
    """Both halves of a round; its scattered keys are removed as soon as nobody needs them."""
    keys, found = _ledger(uri, f"{name}/keys"), _ledger(uri, f"{name}/found")
    missing = found.missing_ids(num_partitions)
    if missing:
        _run_missing(f"{name}: keys", keys, scatter, chunks, run)
        run(f"{name}: compare", compare, missing)
    open_store(uri).delete_tree(f"{name}/keys")


def _run_missing(
    label: str,
    ledger: ShardLedger,
    task: Callable[[Chunk], None],
    chunks: list[Chunk],
    run: RunTasks,
) -> None:
    run(label, task, [chunks[i] for i in ledger.missing_ids(len(chunks))])


def _join_clusters(uri: str, bands: list[str], chunks: list[Chunk]) -> None:
    """Join the edges of all bands, and tell each chunk which of its snippets lost to whom."""
    rounds = [_ledger(uri, f"{band}/found") for band in bands]
    forest = Forest()
    for edges in edges_in_blocks(rounds, ["position", "first"], _EDGES_AT_ONCE):
        forest.add(edges["position"].to_numpy(), edges["first"].to_numpy())
    losers, winners = forest.losers()
    firsts = np.unique(winners)
    # The first of a cluster is the leader of an edge, or it would have lost to one: edges name it.
    names = np.full(len(firsts), None, dtype=object)
    for edges in edges_in_blocks(rounds, ["first", "first_id"], _EDGES_AT_ONCE):
        leaders = edges["first"].to_numpy()
        place = np.minimum(np.searchsorted(firsts, leaders), max(len(firsts) - 1, 0))
        known = firsts[place] == leaders if len(firsts) else np.zeros(len(leaders), dtype=bool)
        found = edges["first_id"].filter(pa.array(known))
        names[place[known]] = found.to_numpy(zero_copy_only=False)
    clusters = _ledger(uri, _CLUSTERS)
    for chunk in chunks:
        low, high = np.searchsorted(losers, [chunk.start, chunk.start + chunk.num_rows])
        here = slice(int(low), int(high))
        first_ids = names[np.searchsorted(firsts, winners[here])]
        columns = [pa.array(losers[here]), pa.array(winners[here]), pa.array(first_ids)]
        losses = pa.Table.from_arrays(columns, LOSSES.names).cast(LOSSES)
        _commit(clusters, chunk.number, {_LOSSES: losses})


# Tasks: module-level functions of values, so that they can run anywhere.


def _scatter_exact(uri: str, num_partitions: int, chunk: Chunk) -> None:
    _commit(_ledger(uri, f"{EXACT}/keys"), chunk.number, scatter_exact(chunk, num_partitions))


def _compare_exact(uri: str, starts: Positions, partition: int) -> None:
    tables = compare_exact(_ledger(uri, f"{EXACT}/keys"), partition, starts)
    _commit(_ledger(uri, f"{EXACT}/found"), partition, tables)


def _collect_copies(uri: str, chunk: Chunk) -> None:
    losses = losses_of_chunk(_ledger(uri, f"{EXACT}/found"), chunk.number)
    _commit(_ledger(uri, _COPIES), chunk.number, {_LOSSES: losses})


def _scatter_band(
    uri: str, band: str, num_earlier_chunks: int, num_partitions: int, chunk: Chunk
) -> None:
    copies = None
    if chunk.number >= num_earlier_chunks:
        losses = _ledger(uri, _COPIES).read_shard(_LOSSES, chunk.number - num_earlier_chunks)
        copies = losses["position"].to_numpy()
    tables = scatter_band(chunk, band, copies, num_partitions)
    _commit(_ledger(uri, f"{band}/keys"), chunk.number, tables)


def _compare_band(uri: str, band: str, near: NearDuplicateConfig, partition: int) -> None:
    tables = compare_band(_ledger(uri, f"{band}/keys"), partition, near)
    _commit(_ledger(uri, f"{band}/found"), partition, tables)


def _write_fates(uri: str, sample_seed: int | None, chunk: Chunk) -> None:
    exact = _ledger(uri, _COPIES).read_shard(_LOSSES, chunk.number)
    near = _ledger(uri, _CLUSTERS).read_shard(_LOSSES, chunk.number)
    tables = fates_of_losses(chunk, exact, near, sample_seed)
    _commit(_ledger(uri, _FATES), chunk.number, tables)


def _earlier_chunks(near: NearDuplicateConfig, rows_per_chunk: int) -> list[Chunk]:
    """The snippets of earlier corpora, at the positions before 0."""
    indexes = list(earlier_indexes(near))
    start = -sum(index.totals().num_input_rows for index in indexes)
    chunks: list[Chunk] = []
    for index in indexes:
        found = make_chunks(index, index.store.uri, TABLE, rows_per_chunk, start)
        chunks += found
        start += sum(chunk.num_rows for chunk in found)
    return renumbered(chunks)


def _stored_plan(uri: str, plan: dict[str, int]) -> dict[str, int]:
    """What the search was begun with: chunks and partitions must stay what they are."""
    store = open_store(uri)
    store.put_exclusive(_PLAN, json.dumps(plan).encode())
    return stored_record(store, _PLAN)


def _commit(ledger: ShardLedger, shard_id: int, tables: dict[str, pa.Table]) -> None:
    ledger.commit(shard_id, sum(table.num_rows for table in tables.values()), tables)


def _ledger(uri: str, name: str) -> ShardLedger:
    return ShardLedger(open_store(uri).sub(name))
