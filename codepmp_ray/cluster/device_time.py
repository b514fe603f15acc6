"""GPU time of a stage: who holds GPUs says now and then that it still does.

    <stage>/_devices/<attempt>/<holder>.json      {"num_gpus", "began_s", "last_s"}

Nobody can say so at its end, because engines and workers are killed as a matter of course. So the
time of a holder ends with its last word, at most a tenth of its age ago and at most a minute. The
records are those of all attempts, on any cluster; they stay with the stage.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from codepmp_ray.config.synthesis import PlanningConfig
from codepmp_ray.errors import StorageError
from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.runs import Stage
from codepmp_ray.storage import Store

FOLDER = "_devices"
_SHORTEST_S, _LONGEST_S, _SHARE_OF_AGE = 2.0, 60.0, 0.1


class DeviceTime:
    """Says so for one holder, from a thread, until `stop` or the end of the process."""

    def __init__(self, store: Store, attempt: str, num_gpus: float) -> None:
        self._store, self._num_gpus = store, num_gpus
        self._name = f"{FOLDER}/{attempt}/{uuid.uuid4().hex[:12]}.json"
        self._began_s, self._age_s, self._ended = time.time(), time.monotonic(), Event()
        if num_gpus:
            self._say()
            Thread(target=self._go_on, daemon=True).start()

    def stop(self) -> None:
        if self._num_gpus:
            self._ended.set()
            self._say()

    def _go_on(self) -> None:
        while True:
            age_s = time.monotonic() - self._age_s
            if self._ended.wait(min(_LONGEST_S, max(_SHORTEST_S, _SHARE_OF_AGE * age_s))):
                return
            self._say()

    def _say(self) -> None:
        last_s = self._began_s + time.monotonic() - self._age_s
        record = {"num_gpus": self._num_gpus, "began_s": self._began_s, "last_s": last_s}
        with suppress(StorageError):  # the next one says it all again
            self._store.put(self._name, record_bytes(record))


@contextmanager
def device_time(store: Store, attempt: str, num_gpus: float) -> Iterator[None]:
    """DeviceTime for the time of the block."""
    held = DeviceTime(store, attempt, num_gpus)
    try:
        yield
    finally:
        held.stop()


def cost_of(stage: Stage) -> dict[str, Any]:
    """GPU seconds of a stage so far and their price, in all and by attempt, oldest first.

    Prices are None without planning.price_per_gpu_hour. Raises StorageError for a damaged record.
    """
    store, price = stage.store, stage.recipe.planning.price_per_gpu_hour
    attempts = []
    for attempt in store.list(FOLDER):
        names = [f"{FOLDER}/{attempt}/{name}" for name in store.list(f"{FOLDER}/{attempt}")]
        records = list(store.each(lambda name: stored_record(store, name), names))
        if records:
            began_s = min(record["began_s"] for record in records)
            gpu_s = sum(r["num_gpus"] * (r["last_s"] - r["began_s"]) for r in records)
            attempts.append((began_s, gpu_s))
    return {
        **_priced(sum(gpu_s for _, gpu_s in attempts), price),
        "attempts": [
            {"began": _text(began_s), **_priced(gpu_s, price)}
            for began_s, gpu_s in sorted(attempts)
        ],
    }


def price_of(stages: list[Stage], planning: PlanningConfig) -> float:
    """What the stages have cost so far; 0 without planning.price_per_gpu_hour."""
    found = [cost_of(stage)["gpu_seconds"] for stage in stages]
    return sum(found) / 3600 * (planning.price_per_gpu_hour or 0.0)


def _priced(gpu_s: float, price_per_gpu_hour: float | None) -> dict[str, Any]:
    price = None if price_per_gpu_hour is None else round(gpu_s / 3600 * price_per_gpu_hour, 4)
    return {"gpu_seconds": round(gpu_s, 1), "price": price}


def _text(began_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began_s))
