"""The metric file of a training stage: one JSON object per line, steps and held-out evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codepmp_ray.analysis.lengths import wilson_interval
from codepmp_ray.analysis.tables import Counts, reject_reasons
from codepmp_ray.json_records import read_record
from codepmp_ray.runs import Stage

METRICS_FILE = "metrics.jsonl"
Metrics = dict[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """Accuracy on held-out pairs with its Wilson interval (95 %)."""

    step: int
    accuracy: float
    num_pairs: int
    low: float
    high: float


@dataclass(frozen=True)
class TrainingData:
    """`steps` and `evals` are in step order, one row per step.

    A run that resumes from a checkpoint logs the steps after it once more; the later row counts.
    A line that was cut off by a kill is counted in `num_unreadable_lines`. `best_step` is the step
    whose weights were exported, where a metric chose it.
    """

    steps: list[Metrics]
    evals: list[Metrics]
    reasons: Counts
    num_unreadable_lines: int
    best_step: int | None = None

    @property
    def last(self) -> Metrics:
        return self.steps[-1] if self.steps else {}

    @property
    def num_steps(self) -> int:
        return int(self.last.get("step", 0))

    @property
    def held_out(self) -> HeldOut | None:
        """The evaluation of the exported weights on held-out pairs; None when there was none."""
        rows = [row for row in self.evals if self.best_step in (None, row["step"])]
        if not rows:
            return None
        row = rows[-1]
        accuracy, num_pairs = number(row, "eval_accuracy"), int(number(row, "eval_num_pairs", 0))
        if math.isnan(accuracy) or num_pairs < 1:
            return None
        return HeldOut(int(row["step"]), accuracy, num_pairs, *wilson_interval(accuracy, num_pairs))


def number(row: Metrics, name: str, default: float = math.nan) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else default


def series(rows: list[Metrics], name: str) -> npt.NDArray[np.float64]:
    """One value per row; NaN where it was not logged."""
    return np.array([number(row, name) for row in rows], dtype=np.float64)


def load_training(stage: Stage) -> TrainingData:
    steps: dict[int, Metrics] = {}
    evals: dict[int, Metrics] = {}
    num_unreadable = 0
    for row in _rows(stage):
        if row is None:
            num_unreadable += 1
        elif any(name.startswith("eval") for name in row):
            evals[int(row["step"])] = row
        else:
            steps[int(row["step"])] = row
    return TrainingData(
        [steps[step] for step in sorted(steps)],
        [evals[step] for step in sorted(evals)],
        reject_reasons(stage.ledger),
        num_unreadable,
        stage.summary().get("best_step") if stage.is_complete else None,
    )


def _rows(stage: Stage) -> list[Metrics | None]:
    if not stage.store.exists(METRICS_FILE):
        return []
    text = stage.store.read_bytes(METRICS_FILE).decode("utf-8", errors="replace")
    return [_parsed(line) for line in text.splitlines() if line.strip()]


def _parsed(line: str) -> Metrics | None:
    try:
        row = read_record(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
