"""Deaths of engines, recorded in the stage's folder by the actors that survive them for a moment.

    _crashes/<pool>/00000012.<random>.json     one record per shard that the engine held

Each pool has its own: a row that kills one model is nothing that the other has to fear. The records
outlive actors, drivers and clusters; they are a stage's only memory of which rows are under
suspicion. They are removed when the stage is complete.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict

from codepmp_ray.storage import Store
from codepmp_ray.synthesis.isolation import Crash

_FOLDER = "_crashes"


class CrashLog:
    """Records and recalls the crashes of one pool of a stage."""

    def __init__(self, store: Store, pool: str) -> None:
        self._store = store
        self._folder = f"{_FOLDER}/{pool}"

    def record(self, crashes: Iterable[Crash]) -> None:
        """Store the crashes of one death of an engine."""
        death = uuid.uuid4().hex[:12]
        for crash in crashes:
            name = f"{self._folder}/{crash.shard_id:08d}.{death}.json"
            self._store.put(name, json.dumps(asdict(crash)).encode())

    def of_shard(self, shard_id: int) -> list[Crash]:
        """What happened to this shard so far; one listing when nothing did."""
        return [
            Crash(**json.loads(self._store.read_bytes(f"{self._folder}/{name}")))
            for name in self._store.list(self._folder)
            if name.startswith(f"{shard_id:08d}.")
        ]

    def num_deaths(self, done_shards: Callable[[], Container[int]]) -> int:
        """How often an engine died over shards that are not done yet.

        `done_shards` is asked only when there are crashes: it lists every shard of the stage.
        """
        names = [name.split(".") for name in self._store.list(self._folder)]
        if not names:
            return 0
        done = done_shards()
        return len({death for shard, death, _ in names if int(shard) not in done})


def forget_crashes(store: Store) -> None:
    """Remove the records of every pool of a stage."""
    store.delete_tree(_FOLDER)
