"""The commit protocol against a store that fails in every way that stores do, many times over.

Writers are threads that run one at a time: before each operation on the store a seeded scheduler
picks who goes next and what happens to the operation. A writer can die there, sleep for as long as
the others need (a zombie), lose the reply of a write that took effect, or have its write refused.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger
from tests.processes import PATIENCE_S

NUM_HISTORIES = 2_000
NUM_SHARDS, ROWS_PER_SHARD = 3, 4
TABLES = ("pairs", "rejected")


class Died(BaseException):
    """The writer's process is gone; nothing of it runs any more."""


class Scheduler:
    """Lets one thread run at a time; which one is a function of the seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._turn = threading.Condition()
        self._waiting: list[str] = []
        self._alive: set[str] = set()
        self._running: str | None = None

    def run(self, writers: dict[str, Callable[[], None]]) -> None:
        def body(name: str, work: Callable[[], None]) -> None:
            try:
                self.pause(name)
                work()
            except Died:
                pass
            finally:
                with self._turn:
                    self._alive.discard(name)
                    self._running = None
                    self._choose()

        self._alive = set(writers)
        threads = [threading.Thread(target=body, args=item) for item in writers.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the simulation hangs"

    def pause(self, name: str) -> None:
        """Hand over; returns when this writer is chosen again."""
        with self._turn:
            self._waiting.append(name)
            if self._running == name:
                self._running = None
            self._choose()
            self._turn.wait_for(lambda: self._running == name)

    def _choose(self) -> None:
        # Only when every living writer waits: then the choice depends on the seed alone.
        if self._running is None and self._waiting and len(self._waiting) == len(self._alive):
            self._running = self.random.choice(sorted(self._waiting))
            self._waiting.remove(self._running)
            self._turn.notify_all()


class SimulatedStore:
    """An object store in memory: strongly consistent, exclusive creation, no rename."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def list(self, folder: str) -> list[str]:
        depth = len(PurePosixPath(folder).parts)
        inside = [PurePosixPath(name).parts for name in self.objects]
        return sorted({p[depth] for p in inside if "/".join(p[:depth]) == folder})

    def read_bytes(self, name: str) -> bytes:
        if name not in self.objects:
            raise StorageError(f"Cannot read {name}.")
        return self.objects[name]

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.objects[name]), columns=columns)

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = data

    def put_exclusive(self, name: str, data: bytes) -> bool:
        if name in self.objects:
            return False
        self.objects[name] = data
        return True

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def locate(self, name: str) -> str:
        return name

    def each(self, function: Callable, items: Iterable) -> Iterator:
        return map(function, items)


class FaultyClient:
    """One writer's connection to the store."""

    def __init__(self, store: SimulatedStore, name: str, scheduler: Scheduler, faults: float):
        self._store, self._name, self._scheduler, self._faults = store, name, scheduler, faults

    def __getattr__(self, operation: str) -> Callable[..., object]:
        call = getattr(self._store, operation)
        if operation in ("locate", "each"):
            return call

        def perform(*arguments: object) -> object:
            self._scheduler.pause(self._name)
            fate = self._scheduler.random.random() / self._faults if self._faults else 1.0
            if fate < 0.3:
                raise Died
            if fate < 0.5:
                raise StorageError("Refused.")
            result = call(*arguments)
            if fate < 0.7:
                raise Died  # it took effect, and nobody learns of it
            if fate < 0.9:
                raise StorageError("Timed out.")
            if fate < 1.0 and operation == "put_exclusive":
                return call(*arguments)  # the client library tried again by itself
            return result

        return perform


def shard_tables(shard: int, writer: str) -> dict[str, pa.Table]:
    num_pairs = shard % (ROWS_PER_SHARD + 1)
    rows = [{"id": f"{shard}-{i}", "writer": writer} for i in range(ROWS_PER_SHARD)]
    schema = pa.schema([("id", pa.string()), ("writer", pa.string())])
    return {
        "pairs": pa.Table.from_pylist(rows[:num_pairs], schema),
        "rejected": pa.Table.from_pylist(rows[num_pairs:], schema),
    }


def write_missing(ledger: ShardLedger, writer: str) -> None:
    """A driver with its tasks: every missing shard, again after an error, and sweeping."""
    for _ in range(4):
        try:
            for shard in ledger.missing_ids(NUM_SHARDS):
                ledger.commit(shard, ROWS_PER_SHARD, shard_tables(shard, writer))
                ledger.sweep(TABLES)
            ledger.sweep(TABLES)
            return
        except StorageError:
            continue


def simulate(seed: int) -> tuple[SimulatedStore, ShardLedger]:
    """One history: writers that race, die and come back, and at the end one that is left alone.

    Types are ignored where a ledger gets what is no store but has the methods that it calls.
    """
    scheduler, store = Scheduler(seed), SimulatedStore()
    num_writers = scheduler.random.randint(1, 4)
    faults = scheduler.random.choice([0.0, 0.05, 0.2, 0.5])

    def writer(name: str) -> Callable[[], None]:
        client = FaultyClient(store, name, scheduler, faults)
        return lambda: write_missing(ShardLedger(client), name)  # type: ignore[arg-type]

    scheduler.run({f"w{i}": writer(f"w{i}") for i in range(num_writers)})
    ledger = ShardLedger(store)  # type: ignore[arg-type]
    write_missing(ledger, "last")
    return store, ledger


def problems(store: SimulatedStore, ledger: ShardLedger) -> list[str]:
    """What is wrong at the end of a history; empty if nothing."""
    found = []
    tables = [ledger.read(table).to_pylist() for table in TABLES]
    ids = sorted(row["id"] for rows in tables for row in rows)
    expected = sorted(f"{s}-{i}" for s in range(NUM_SHARDS) for i in range(ROWS_PER_SHARD))
    if ids != expected:
        found.append(f"rows {ids}")
    for shard in range(NUM_SHARDS):
        writers = {r["writer"] for rows in tables for r in rows if r["id"][0] == str(shard)}
        if len(writers) != 1:
            found.append(f"shard {shard} is of {writers}")
    named = {name for commit in ledger.commits() for name in commit.files.values()}
    if extra := {n for n in store.objects if not n.startswith("_commits/")} - named:
        found.append(f"left over: {sorted(extra)}")
    return found


@pytest.mark.slow
@pytest.mark.slow
def test_thousands_of_histories_end_with_every_row_once() -> None:
    for seed in range(NUM_HISTORIES):
        store, ledger = simulate(seed)
        assert not problems(store, ledger), f"seed {seed}: {problems(store, ledger)}"


def test_a_seed_is_a_history() -> None:
    def trace(seed: int) -> list[str]:
        store, _ = simulate(seed)
        return sorted(name.split(".")[0] for name in store.objects)

    assert [trace(seed) for seed in range(20)] == [trace(seed) for seed in range(20)]


@pytest.mark.parametrize("broken", ["overwrite", "no_attempt_names", "sweep_unfinished"])
def test_the_simulation_finds_protocols_that_are_wrong(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three mistakes that look harmless, each caught within a few hundred histories."""
    if broken == "overwrite":  # the last writer wins

        def put(self: SimulatedStore, name: str, data: bytes) -> bool:
            self.objects[name] = data
            return True

        monkeypatch.setattr(SimulatedStore, "put_exclusive", put)
    elif broken == "no_attempt_names":  # all attempts write the same files
        monkeypatch.setattr("codepmp_ray.ledger.uuid.uuid4", lambda: type("U", (), {"hex": "0"}))
    else:  # files of shards without a marker are taken for garbage

        def sweep(self: ShardLedger, tables: tuple[str, ...]) -> int:
            named = {name for commit in self.commits() for name in commit.files.values()}
            for table in tables:
                for entry in self.store.list(f"{table}/00000"):
                    if f"{table}/00000/{entry}" not in named:
                        self.store.delete(f"{table}/00000/{entry}")
            return 0

        monkeypatch.setattr(ShardLedger, "sweep", sweep)

    def is_wrong(seed: int) -> bool:
        try:
            return bool(problems(*simulate(seed)))
        except KeyError:  # a marker names a file that is gone
            return True

    assert any(is_wrong(seed) for seed in range(500))
