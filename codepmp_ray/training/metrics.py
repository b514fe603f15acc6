"""`metrics.jsonl` of a training stage: one JSON object per line, consistent across resumes."""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from typing import Any

from codepmp_ray.errors import StorageError
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.storage import Store
from codepmp_ray.training.growing_files import GrowingFile, Turns

METRICS_FILE = "metrics.jsonl"
Row = dict[str, Any]


class MetricsLog:
    """Appends rows; at resume, forgets the rows of steps that are about to run again.

    Args:
        inherited: rows of the run that this one is a branch of, if it has none of its own.
    """

    def __init__(self, store: Store, resume_step: int, inherited: list[Row] | None = None) -> None:
        known = inherited if inherited is not None else read_metrics(store)
        kept = [row for row in known if row["step"] <= resume_step and not _ended_the_run(row)]
        self._file = GrowingFile(store, METRICS_FILE, _lines(kept))
        self.evaluations = [row for row in kept if is_evaluation(row)]
        self.skipped = [row["step"] for row in kept if row.get("skipped")]

    def append(self, row: Row) -> None:
        if row.get("skipped"):
            self.skipped.append(row["step"])
        self._file.append(_lines([row]))
        if is_evaluation(row):
            self.evaluations.append(row)
            self.flush()  # the best checkpoint is chosen by these: they must be there when it is

    def flush(self) -> None:
        """Every row is where a resumed run finds it, when this has returned."""
        self._file.flush()


def is_evaluation(row: Row) -> bool:
    """Whether a row is of held-out pairs or evaluation sets, not of an optimizer step."""
    return any(name.startswith("eval") for name in row)


def evaluation_losses(row: Row) -> dict[str, float]:
    """The losses of an evaluation by what its metrics begin with: `eval_`, `eval/NAME/`."""
    losses = (name for name in row if re.fullmatch("eval_loss|eval/[^/]+/loss", name))
    return {name.removesuffix("loss"): row[name] for name in losses}


def _ended_the_run(row: Row) -> bool:
    """A first evaluation that was not finite; the next run may be of mended weights."""
    losses = evaluation_losses(row).values()
    return row["step"] == 0 and not all(map(math.isfinite, losses))


def read_metrics(store: Store, name: str = METRICS_FILE) -> list[Row]:
    """All whole lines; a line that is still being written is left out."""
    if not store.exists(name):
        return []
    rows = []
    for line in store.read_bytes(name).decode("utf-8", "replace").splitlines():
        try:
            rows.append(read_record(line))
        except ValueError:
            continue
    return rows


class Looks:
    """Rows as somebody sees them who only watches: now and then, and as before if that fails."""

    def __init__(self, store: Store) -> None:
        self._store, self._turns = store, Turns(store.poll_s)
        self._rows: list[Row] = []

    def rows(self, *, now: bool = False) -> list[Row]:
        """The rows so far; looked up if it is time, or wanted `now`."""
        if now or self._turns.is_due:
            start_s = time.monotonic()
            with suppress(StorageError):
                self._rows = read_metrics(self._store)
            self._turns.took(time.monotonic() - start_s)
        return self._rows


def write_metrics(store: Store, name: str, rows: list[Row]) -> None:
    """Write `rows` at `name`, replacing what was there."""
    store.put(name, _lines(rows))


def _lines(rows: list[Row]) -> bytes:
    return b"".join(record_bytes(row) + b"\n" for row in rows)
