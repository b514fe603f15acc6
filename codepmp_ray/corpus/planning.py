"""Cutting a source into work units, with the deterministic sample of `max_files`.

The plan is made once and stored: units must stay what they are when a job resumes, whatever
`files_per_task` says then. Files and rows keep the order of the listing; the order of everything
downstream follows from it and not from who worked when.
"""

from __future__ import annotations

import heapq
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.arrow_rows import dataset_pieces
from codepmp_ray.corpus.row_files import parquet_pieces
from codepmp_ray.corpus.sources import file_format, listing_digest
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.io.json_lines import FROM_START, LINE_PART_BYTES, json_part, json_pieces
from codepmp_ray.io.listing import is_compressed
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.records import stable_id
from codepmp_ray.storage import Store
from codepmp_ray.storage.base import map_in_parallel
from codepmp_ray.storage.inputs import InputFolder, Listed, RemoteFolder

EXTRACTED, DUPLICATES = "extracted", "duplicates"  # folders of a corpus that is being made
_PLAN = "plan.json"
_COLUMNS = ("unit_id", "file", "first", "stop", "position", "problem")


@dataclass(frozen=True, slots=True)
class Span:
    """Documents [first, stop) of one file. A plain file is one document.

    `position` helps to find them: the row group of Parquet, what `json_pieces` says of JSON.
    `problem` says why a file cannot be read; it then counts as one document.
    """

    file: str
    first: int
    stop: int
    position: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """What one task reads. `num_documents` counts those taken by the sample."""

    unit_id: int
    num_documents: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class CorpusPlan:
    """`threshold`: a document is taken if its sampling key is not above it; None takes all.

    `root` is where the files lie if that is a URI (of a commit, for the hub), else "".
    """

    digest: str
    num_found: int
    num_taken: int
    threshold: str | None
    units: tuple[WorkUnit, ...]
    root: str = ""


def document_key(span: Span, index: int, kind: str) -> str:
    """A document's place in its source, unique there."""
    if kind in ("stdlib", "folder") or span.problem:
        return span.file
    return f"{span.file}#{index}"


def is_taken(key: str, seed: int, threshold: str | None) -> bool:
    return threshold is None or _sampling_key(key, seed) <= threshold


# A file, or the part of a file of lines that begins at a byte; -1 for a file as a whole.
Part = tuple[str, int]
RunParts = Callable[[Callable[[Part], "Pieces"], Sequence[Part]], Iterable["Pieces"]]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a part holds: how many rows, and (first row, row after the last, position) of pieces of
    them, counted from the first row of the part; or why it cannot be read."""

    num_rows: int
    cuts: list[tuple[int, int, int]]
    problem: str = ""


def plan_corpus(
    corpus: CorpusConfig,
    root: InputFolder,
    files: list[Listed],
    run: RunParts | None = None,
) -> CorpusPlan:
    """Work units of about `files_per_task` documents.

    `run` looks into data files, in any place and order, and gives what it found in the order of the
    parts; without it this process does. Raises InputError when the source holds no document, or
    none that can be read.
    """
    kind, seed = corpus.source.kind, corpus.sample_seed
    is_remote = isinstance(root, RemoteFolder)
    if kind in ("stdlib", "folder"):
        spans = [Span(file.name, 0, 1) for file in files]
    else:
        run = run or (lambda look, parts: map_in_parallel(look, parts, 32 if is_remote else 1))
        parts = [part for file in files for part in _parts(corpus, file)]
        spans = list(_spans(parts, run(partial(_look, corpus, root), parts)))
    num_found = sum(span.stop - span.first for span in spans)
    if not num_found:
        raise InputError(f"corpus.source {root} ({kind}): its {len(files)} files hold no rows.")
    if all(span.problem for span in spans):
        raise InputError(
            f"corpus.source {root} ({kind}): none of its {len(files)} files can be read; "
            f"{spans[0].file}: {spans[0].problem}.",
            "Check the files, and corpus.source.content_column.",
        )
    threshold = None
    if corpus.max_files is not None and num_found > corpus.max_files:
        keys = (_sampling_key(key, seed) for span in spans for key in _keys(span, kind))
        threshold = heapq.nsmallest(corpus.max_files, keys)[-1]
    units = tuple(_pack(spans, corpus, threshold))
    return CorpusPlan(
        digest=listing_digest(files),
        num_found=num_found,
        num_taken=sum(unit.num_documents for unit in units),
        threshold=threshold,
        units=units,
        root=str(root) if is_remote else "",
    )


def recorded_root(store: Store) -> str:
    """The URI that the plan in `store` reads from; "" for a local source, and without a plan."""
    return _read_record(store).get("root", "") if store.exists(_PLAN) else ""


def recorded_digest(store: Store) -> str | None:
    """The listing digest of the source that the plan in `store` was made from."""
    return _read_record(store)["digest"] if store.exists(_PLAN) else None


def num_units(store: Store) -> int | None:
    """Work units of the plan in `store`; None without a plan."""
    return len(_read_record(store)["num_documents"]) if store.exists(_PLAN) else None


def save_plan(store: Store, plan: CorpusPlan) -> None:
    """Store the plan; of two jobs that race, the first one's stays."""
    spans = [span for unit in plan.units for span in unit.spans]
    columns = {
        "unit_id": pa.array([unit.unit_id for unit in plan.units for _ in unit.spans]),
        "file": pa.array([os.fsencode(span.file) for span in spans]).dictionary_encode(),
        **{name: pa.array([getattr(span, name) for span in spans]) for name in _COLUMNS[2:]},
    }
    units = f"plan/units.{uuid.uuid4().hex[:12]}.parquet"
    store.put_table(units, pa.table(columns))
    record = {
        "digest": plan.digest,
        "num_found": plan.num_found,
        "num_taken": plan.num_taken,
        "threshold": plan.threshold,
        "num_documents": [unit.num_documents for unit in plan.units],
        "units": units,
        "root": plan.root,
    }
    if not store.put_exclusive(_PLAN, json.dumps(record).encode()):
        store.delete(units)


def load_plan(store: Store) -> CorpusPlan:
    """The stored plan."""
    record = _read_record(store)
    spans: list[list[Span]] = [[] for _ in record["num_documents"]]
    table = store.read_table(record["units"])
    names: dict[bytes, str] = {}  # many spans are of one file
    for unit_id, file, *place in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True):
        spans[unit_id].append(Span(names.setdefault(file, os.fsdecode(file)), *place))
    units = (
        WorkUnit(unit_id, num_documents, tuple(spans[unit_id]))
        for unit_id, num_documents in enumerate(record["num_documents"])
    )
    return CorpusPlan(
        digest=record["digest"],
        num_found=record["num_found"],
        num_taken=record["num_taken"],
        threshold=record["threshold"],
        units=tuple(units),
        root=record.get("root", ""),
    )


def _read_record(store: Store) -> dict[str, Any]:
    try:
        record = json.loads(store.read_bytes(_PLAN))
    except ValueError as error:
        raise StorageError(
            f"{store.locate(_PLAN)} is not a plan ({error}).",
            f"Delete {store.uri} and run the job again.",
        ) from error
    return record


def in_runs(
    corpus: CorpusConfig, units: Sequence[WorkUnit], num_at_once: int
) -> list[list[WorkUnit]]:
    """The units, in runs that one process reads after each other.

    Units of one row group, or of one compressed file, are one run, so that it is read once. Where
    that makes fewer runs than can be read at once they are cut, and a group is read by several.
    """

    def group(unit: WorkUnit) -> tuple[Any, ...]:
        span = unit.spans[0]
        kind = file_format(corpus.source, span.file)
        is_group = kind == "parquet" or (kind == "jsonl" and span.position == FROM_START)
        return (span.file, span.position) if is_group and not span.problem else (unit.unit_id,)

    runs = [list(run) for _, run in groupby(units, group)]
    num_cuts = max(1, -(-num_at_once // max(1, len(runs))))
    sizes = [-(-len(run) // num_cuts) for run in runs]
    return [
        run[i : i + size]
        for run, size in zip(runs, sizes, strict=True)
        for i in range(0, len(run), size)
    ]


def _parts(corpus: CorpusConfig, file: Listed) -> list[Part]:
    # The hub does not say how large its files are; an array (.json) is read from its beginning.
    is_cut = not is_compressed(file.name) and not file.name.lower().endswith(".json")
    if file.size and is_cut and file_format(corpus.source, file.name) == "jsonl":
        return [(file.name, start) for start in range(0, file.size, LINE_PART_BYTES)]
    return [(file.name, -1)]


def _look(corpus: CorpusConfig, root: InputFolder, part: Part) -> Pieces:
    """What lies in a part of a data file."""
    source, rows = corpus.source, corpus.files_per_task
    name, start = part
    try:
        kind = file_format(source, name)
        if start >= 0:
            found = json_part(root / name, rows, start, start + LINE_PART_BYTES)
            return Pieces(*found) if found else Pieces(0, [])
        if kind == "parquet":
            cuts = parquet_pieces(root / name, source, rows)
        elif kind == "jsonl":
            cuts = json_pieces(root / name, rows)
        else:
            cuts = dataset_pieces(root, source, rows)
    except UnreadableRow as error:
        return Pieces(1, [], str(error))
    return Pieces(cuts[-1][1] if cuts else 0, cuts)


def _spans(parts: Sequence[Part], found: Iterable[Pieces]) -> Iterator[Span]:
    """The parts' pieces as spans of their files, rows counted from each file's first."""
    for name, of_file in groupby(zip(parts, found, strict=True), lambda item: item[0][0]):
        num_before, all_pieces = 0, [pieces for _, pieces in of_file]
        if problem := next((pieces.problem for pieces in all_pieces if pieces.problem), ""):
            yield Span(name, 0, 1, 0, problem)
            continue
        for pieces in all_pieces:
            for first, stop, position in pieces.cuts:
                yield Span(name, num_before + first, num_before + stop, position)
            num_before += pieces.num_rows


def _keys(span: Span, kind: str) -> Iterator[str]:
    return (document_key(span, index, kind) for index in range(span.first, span.stop))


def _pack(spans: list[Span], corpus: CorpusConfig, threshold: str | None) -> Iterator[WorkUnit]:
    kind, seed = corpus.source.kind, corpus.sample_seed
    unit_id, num_documents, packed = 0, 0, []
    for span in spans:
        num_taken = span.stop - span.first
        if threshold is not None:
            num_taken = sum(is_taken(key, seed, threshold) for key in _keys(span, kind))
        if not num_taken:
            continue
        packed.append(span)
        num_documents += num_taken
        if num_documents >= corpus.files_per_task:
            yield WorkUnit(unit_id, num_documents, tuple(packed))
            unit_id, num_documents, packed = unit_id + 1, 0, []
    if packed:
        yield WorkUnit(unit_id, num_documents, tuple(packed))


def _sampling_key(key: str, seed: int) -> str:
    return stable_id("file", str(seed), key)
