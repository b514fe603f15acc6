"""A step whose gradient is not finite changes nothing, and is counted."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.loop import train
from codepmp_ray.training.metrics import read_metrics
from codepmp_ray.training.step import StepRunner
from codepmp_ray.training.task import InputShard, TrainingTask


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(
    group,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model_dir: Path,
    preference_rows: list[dict],
) -> None:
    seen: list[torch.Tensor] = []
    runs_as_ever = StepRunner.train

    def with_an_overflow(self: StepRunner, pairs: list[Any]) -> Any:
        first = next(iter(self.model.parameters()))
        seen.append(first.full_tensor().detach().clone())
        result = runs_as_ever(self, pairs)
        if len(seen) == 2:
            first.grad.to_local().view(-1)[0] = float("inf")
        return result

    monkeypatch.setattr(StepRunner, "train", with_an_overflow)
    settings = {"objective": "rm", "batch_size": 5, "max_steps": 4, "max_length": 256}
    config = TrainingConfig.model_validate(
        {**settings, "max_tokens_per_micro_batch": 512, "bf16": False, "logging_steps": 3}
    )
    rows = InputShard("run", "digest", functools.partial(list, preference_rows))
    task = TrainingTask("finetuning", config, str(tiny_model_dir), (rows,), str(tmp_path))
    train(task, lambda row: None)

    before_first, before_second, before_third, before_fourth = seen
    assert not before_first.equal(before_second)
    assert before_second.equal(before_third)
    assert not before_third.equal(before_fourth)
    rows = [row for row in read_metrics(LocalStore(tmp_path)) if "loss" in row]
    # A skipped step is always logged.
    assert [(row["step"], row["skipped"]) for row in rows] == [(2, True), (3, False), (4, False)]
