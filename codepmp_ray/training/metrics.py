"""`metrics.jsonl` of a training stage: one JSON object per line, consistent across resumes."""

from __future__ import annotations

import json
from typing import Any

from codepmp_ray.storage import LocalStore, Store

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends rows; at resume, forgets the rows of steps that are about to run again."""

    def __init__(self, store: LocalStore, resume_step: int) -> None:
        self._store = store
        kept = [row for row in read_metrics(store) if row["step"] <= resume_step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        store.put(METRICS_FILE, text.encode())

    def append(self, row: dict[str, Any]) -> None:
        with open(self._store.path(METRICS_FILE), "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")


def read_metrics(store: Store) -> list[dict[str, Any]]:
    """All whole lines; a line that is still being written is left out."""
    if not store.exists(METRICS_FILE):
        return []
    rows = []
    for line in store.read_bytes(METRICS_FILE).decode("utf-8", "replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
