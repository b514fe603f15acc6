"""What a run says about itself under TRL's names: metrics.jsonl, trackers, Ray Train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch.distributed as dist

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.modeling.collectives import agree
from codepmp_ray.preference.items import Sides
from codepmp_ray.storage import Store
from codepmp_ray.training.data import TrainingData
from codepmp_ray.training.metrics import MetricsLog, Row
from codepmp_ray.training.step import StepResult
from codepmp_ray.training.task import TrainingTask, best_step, stopping_step
from codepmp_ray.training.trackers import Tracker, open_trackers


class RunLog:
    """Files are written on rank 0; `report` is called on every rank ."""

    def __init__(
        self,
        store: Store,
        task: TrainingTask,
        first_step: int,
        report: Callable[[Row], None],
        inherited: list[Row] | None = None,
    ) -> None:
        self._config, self._report = task.config, report
        self._file: MetricsLog | None = None
        self._trackers: list[Tracker] = []
        if dist.get_rank() == 0:
            self._file = MetricsLog(store, first_step, inherited)
            names = task.config.report_to
            self._trackers = open_trackers(names, store, first_step, task.settings())

    def record(self, row: Row) -> None:
        if self._file is not None:
            self._file.append(row)
        for tracker in self._trackers:
            tracker.log(row)
        self._report(row)

    def flush(self) -> None:
        """Rows so far are there for a run that resumes from the checkpoint that comes now."""
        if self._file is not None:
            self._file.flush()

    def has_evaluation(self, step: int) -> bool:
        """Whether held-out pairs were evaluated after `step`, before a kill perhaps. Collective."""
        return agree(any(row["step"] == step for row in self._evaluations))

    def num_skipped(self) -> int:
        """Steps not taken so far, because a gradient was not finite. Collective."""
        return agree(len(self._file.skipped) if self._file is not None else 0)

    def num_skipped_in_a_row(self, up_to: int) -> int:
        """Of these the last ones, without a step between them and `up_to`. Collective."""
        skipped, last = set(self._file.skipped if self._file is not None else ()), up_to
        while last in skipped:
            last -= 1
        return agree(up_to - last)

    def best_step(self, up_to: int | None = None) -> int | None:
        """Best evaluated step (of the first `up_to`) by `best_metric`; on rank 0, else None."""
        rows = [row for row in self._evaluations if up_to is None or row["step"] <= up_to]
        return best_step(self._config, rows)

    def stops_early(self) -> bool:
        """Whether the evaluations so far end the training; on rank 0, else False."""
        return stopping_step(self._config, self._evaluations) is not None

    def close(self) -> None:
        self.flush()
        for tracker in self._trackers:
            tracker.close()

    @property
    def _evaluations(self) -> list[Row]:
        return self._file.evaluations if self._file is not None else []


class Counts:
    """Pairs, tokens and epochs up to a step: functions of the plan, so that a resume keeps them."""

    def __init__(self, data: TrainingData, config: TrainingConfig, sides: Sides) -> None:
        self._of_items = np.stack([data.train.packed_lengths(sides), data.train.pair_counts()])
        self._mixture = data.mixture
        self._config = config
        self._step, self._sums = 0, np.zeros(2, dtype=np.int64)  # tokens and pairs of the steps

    def row(self, step: int) -> dict[str, Any]:
        """After `step` finished steps. Steps have to come in order."""
        batch_size = self._config.batch_size
        for number in range(self._step, step):
            indices = self._mixture.step_indices(batch_size, number)
            self._sums += self._of_items[:, indices].sum(axis=1)
        self._step = step
        num_tokens, num_pairs = self._sums.tolist()
        return {
            "epoch": round(self._mixture.epochs(batch_size, step), 4),
            "num_tokens": num_tokens,
            "num_pairs_seen": num_pairs,
        }


def step_row(
    result: StepResult,
    step: int,
    total_steps: int,
    counts: dict[str, Any],
    measured: dict[str, Any],
) -> Row:
    """One optimizer step. `num_tokens` runs on over the whole training, as TRL's does."""
    own = result.row()
    return {
        "step": step,
        "total_steps": total_steps,
        **own,
        "step_num_tokens": own["num_tokens"],
        **counts,
        **measured,
    }
