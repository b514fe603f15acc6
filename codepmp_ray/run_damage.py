"""What in a run directory is not as it was written, and taking that back.

Every record, marker, roll-up and table of a stage is looked at: tables are read and compared with
the digest in their shard's marker (those of older releases, which have none, are opened and their
rows counted). To take a shard back is to remove its marker and files, and `complete.json` before:
the stage's own command then makes that shard anew and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from codepmp_ray.errors import StorageError
from codepmp_ray.json_records import stored_record
from codepmp_ray.ledger import GROUP_SIZE, ShardLedger
from codepmp_ray.runs import Stage
from codepmp_ray.shard_markers import (
    COMMITS,
    GROUP,
    MARKER,
    ROLLUP,
    ROLLUPS,
    TABLE_FILE,
    ShardCommit,
    content_digest,
)
from codepmp_ray.shard_rewrite import sole_writer

# Ledgers of a stage: its own, and the one that a corpus keeps beside, shard by shard.
_LEDGERS = ("", "keep_index")
# Their shards say what was trained on; the weights are there without them.
_TRAINED = ("pretraining", "finetuning")
_RECORDS = ("manifest.json", "complete.json")


@dataclass(frozen=True)
class Damage:
    """One file of a stage. `shard_id` is the shard that is lost with it, if one is; `is_foreign`
    of what nobody here wrote, which is in nobody's way."""

    stage: Stage
    file: str
    why: str
    shard_id: int | None = None
    is_foreign: bool = False

    def describe(self) -> str:
        shard = "" if self.shard_id is None else f" (shard {self.shard_id})"
        return f"{self.stage.folder}/{self.file}{shard}: {self.why}"

    @property
    def can_be_taken_back(self) -> bool:
        """Not the account of a finished training: it would not be trained again."""
        is_trained = self.stage.name in _TRAINED and self.stage.is_complete
        return not (self.is_foreign or (is_trained and self.shard_id is not None))


def find_damage(stage: Stage) -> Iterator[Damage]:
    """Everything of the stage that cannot be read, is cut short, changed or gone."""
    for name in _RECORDS:
        if stage.store.exists(name):
            try:
                stored_record(stage.store, name)
            except StorageError as error:
                yield Damage(stage, name, error.problem)
    for folder in _LEDGERS:
        ledger = ShardLedger(stage.store.sub(folder)) if folder else stage.ledger
        prefix = f"{folder}/" if folder else ""
        yield from (
            Damage(stage, prefix + file, why, shard_id, is_foreign)
            for file, why, shard_id, is_foreign in _of_ledger(ledger)
        )
    yield from _missing(stage)


def take_back(damages: Iterable[Damage]) -> list[Damage]:
    """Remove what can be made anew; returns what was. No job of the run may be running.

    Killed at any point, the same call finishes it.
    """
    done = [damage for damage in damages if damage.can_be_taken_back]
    for stage in {damage.stage.uri: damage.stage for damage in done}.values():
        own = [damage for damage in done if damage.stage.uri == stage.uri]
        with sole_writer(stage.ledger):
            # First: from here on the stage is one that has work left.
            stage.store.delete("complete.json")
            for damage in own:
                if damage.shard_id is not None:
                    _forget(stage, damage.shard_id)
                stage.store.delete(damage.file)
    return done


def _forget(stage: Stage, shard_id: int) -> None:
    for folder in _LEDGERS:
        ledger = ShardLedger(stage.store.sub(folder)) if folder else stage.ledger
        group = f"{shard_id // GROUP_SIZE:05d}"
        files = [
            f"{table}/{group}/{name}"
            for table in _tables(ledger)
            for name in ledger.store.list(f"{table}/{group}")
            if (match := TABLE_FILE.fullmatch(name)) and int(match[1]) == shard_id
        ]
        ledger.forget(shard_id, files)


_Found = tuple[str, str, int | None, bool]  # file, why, shard, whether it is foreign


def _of_ledger(ledger: ShardLedger) -> Iterator[_Found]:
    store = ledger.store
    yield from _foreign(ledger)
    for group in (name for name in store.list(COMMITS) if GROUP.fullmatch(name)):
        names = [name for name in store.list(f"{COMMITS}/{group}") if MARKER.fullmatch(name)]
        texts = list(store.each(lambda name, g=group: _marker(ledger, g, name), names))
        markers = [found for found in texts if isinstance(found, ShardCommit)]
        yield from (found for found in texts if not isinstance(found, ShardCommit))
        rollup = f"{ROLLUPS}/{group}.parquet"
        if store.exists(rollup):
            ids = {int(name.removesuffix(".json")) for name in names}
            yield from _of_rollup(ledger, rollup, markers, ids)
        files = [(marker, table) for marker in markers for table in marker.files]
        for (marker, table), why in zip(
            files, store.each(lambda pair: _table_problem(ledger, *pair), files), strict=True
        ):
            if why:
                yield marker.files[table], why, marker.shard_id, False


def _foreign(ledger: ShardLedger) -> Iterator[_Found]:
    store, why = ledger.store, "is not ours, and left alone"
    for folder, pattern in ((COMMITS, GROUP), (ROLLUPS, ROLLUP)):
        for name in store.list(folder):
            if not pattern.fullmatch(name):
                yield f"{folder}/{name}", why, None, True
    for folder, pattern in ((COMMITS, MARKER), *((table, TABLE_FILE) for table in _tables(ledger))):
        for group in store.list(folder):
            for name in store.list(f"{folder}/{group}") if GROUP.fullmatch(group) else ():
                if not pattern.fullmatch(name):
                    yield f"{folder}/{group}/{name}", why, None, True


def _tables(ledger: ShardLedger) -> list[str]:
    """Folders that hold groups, as tables do."""
    others = (COMMITS, ROLLUPS)
    return [
        folder
        for folder in ledger.store.list("")
        if folder not in others
        and "." not in folder
        and any(GROUP.fullmatch(group) for group in ledger.store.list(folder))
    ]


def _marker(ledger: ShardLedger, group: str, name: str) -> ShardCommit | _Found:
    shard_id, file = int(name.removesuffix(".json")), f"{COMMITS}/{group}/{name}"
    try:
        marker = ledger.read_marker(shard_id)
    except StorageError as error:
        return file, error.problem, shard_id, False
    if marker.shard_id != shard_id:
        return file, f"it is the marker of shard {marker.shard_id}", shard_id, False
    return marker


def _of_rollup(
    ledger: ShardLedger, name: str, markers: list[ShardCommit], ids: set[int]
) -> Iterator[_Found]:
    """Against the markers of its group that can be read, and the ids of all that are there."""
    try:
        there = {marker.shard_id: marker for marker in ledger.read_rollup(name)}
    except StorageError as error:
        yield name, error.problem, None, False
        return
    if there != {marker.shard_id: marker for marker in markers}:
        yield name, "it says something else than the markers of its group", None, False
    for shard_id in there.keys() - ids:
        group = shard_id // GROUP_SIZE
        if name == f"{ROLLUPS}/{group:05d}.parquet":
            file = f"{COMMITS}/{group:05d}/{shard_id:08d}.json"
            yield file, "it is not there, though the roll-up has it", shard_id, False


def _table_problem(ledger: ShardLedger, marker: ShardCommit, table: str) -> str:
    file = marker.files[table]
    if not ledger.store.exists(file):
        return "it is not there"
    data = ledger.store.read_bytes(file)
    if wanted := marker.digests.get(table):
        if content_digest(data) == wanted:
            return ""
        return f"{len(data):,} bytes that are not the {marker.num_bytes[table]:,} that were written"
    try:
        num_rows = pq.read_table(pa.BufferReader(data)).num_rows
    except (pa.ArrowException, OSError) as error:
        return f"it is not a readable Parquet file ({error})"
    wanted_rows = marker.num_rows[table]
    return "" if num_rows == wanted_rows else f"it has {num_rows} rows instead of {wanted_rows}"


def _missing(stage: Stage) -> Iterator[Damage]:
    """Shards of a finished stage that have no marker: of those that its manifest counts, or below
    the last one that has one."""
    if not stage.is_complete:
        return
    try:
        counted = stage.num_shards() or 0
    except StorageError:  # said already
        counted = 0
    last = max(stage.ledger.committed_ids(), default=-1)
    for shard_id in stage.ledger.missing_ids(max(counted, last + 1)):
        group = shard_id // GROUP_SIZE
        file = f"{COMMITS}/{group:05d}/{shard_id:08d}.json"
        yield Damage(stage, file, "it is not there", shard_id)
