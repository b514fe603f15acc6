"""A training that learns nothing ends with an error and without an export."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import TrainingError
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.loop import train
from codepmp_ray.training.metrics import is_evaluation, read_metrics
from codepmp_ray.training.step import StepRunner
from codepmp_ray.training.task import InputShard, TrainingTask

Begin = Callable[..., TrainingTask]


@pytest.fixture
def begin(group, tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]) -> Begin:
    def task(model: Path = tiny_model_dir, **settings: Any) -> TrainingTask:
        usual = {"objective": "rm", "batch_size": 5, "max_length": 256, "bf16": False}
        usual |= {"max_tokens_per_micro_batch": 512, "num_train_epochs": 20, "eval_fraction": 0.0}
        config = TrainingConfig.model_validate({**usual, "logging_steps": 50, **settings})
        rows = InputShard("run", "digest", functools.partial(list, preference_rows))
        return TrainingTask("finetuning", config, str(model), (rows,), str(tmp_path / "stage"))

    return task


def spoil(monkeypatch: pytest.MonkeyPatch, is_spoilt: Callable[[int], bool]) -> list[int]:
    """The gradients of these steps (from 1 in this process) become NaN; the steps so far."""
    steps: list[int] = []
    runs_as_ever = StepRunner.train

    def run(self: StepRunner, pairs: list[Any]) -> Any:
        result = runs_as_ever(self, pairs)
        steps.append(len(steps) + 1)
        if is_spoilt(steps[-1]):
            gradient: Any = next(iter(self.model.parameters())).grad
            gradient.to_local().view(-1)[0] = float("nan")
        return result

    monkeypatch.setattr(StepRunner, "train", run)
    return steps


def require_json(lines: Iterable[bytes]) -> None:
    for line in lines:
        json.loads(line, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


def test_ten_skipped_steps_in_a_row_end_the_training(begin: Begin, monkeypatch) -> None:
    # Nine, a step that works, and then no more.
    spoil(monkeypatch, lambda step: step != 10)
    task = begin(max_steps=40, save_steps=4)
    with pytest.raises(TrainingError) as raised:
        train(task, lambda row: None)
    text = str(raised.value)
    assert "after step 20 of 40: 10 steps in a row" in text and "gradient norm nan" in text
    assert "loss 0." in text and "learning_rate" in text and task.out_dir in text
    store = LocalStore(Path(task.out_dir))
    assert not store.exists("model")
    assert [row["step"] for row in read_metrics(store)] == [*range(1, 10), *range(11, 21)]
    require_json(store.read_bytes("metrics.jsonl").splitlines())


def test_a_resumed_run_counts_the_skipped_steps_before_it(begin: Begin, monkeypatch) -> None:
    steps = spoil(monkeypatch, lambda step: True)
    task = begin(max_steps=40, save_steps=4)
    for last in (10, 12):  # the checkpoint of step 8, and two steps more
        with pytest.raises(TrainingError, match="after step 10 of 40"):
            train(task, lambda row: None)
        assert len(steps) == last


def test_a_training_that_took_no_step_at_all_has_failed(begin: Begin, monkeypatch) -> None:
    spoil(monkeypatch, lambda step: True)
    task = begin(max_steps=3)
    for _ in range(2):  # the same command finds the last checkpoint, and exports nothing either
        with pytest.raises(TrainingError, match="after step 3 of 3: every step was skipped"):
            train(task, lambda row: None)
    assert not (Path(task.out_dir) / "model").exists()


def test_weights_with_nan_are_found_by_the_first_evaluation(
    begin: Begin, monkeypatch, tmp_path: Path, tiny_model_dir: Path
) -> None:
    steps = spoil(monkeypatch, lambda step: False)
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    weights = load_file(model / "model.safetensors")
    sound = {name: tensor.clone() for name, tensor in weights.items()}
    next(tensor for name, tensor in weights.items() if "down_proj" in name)[0, 0] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    task = begin(model, max_steps=3, eval_fraction=0.2)
    with pytest.raises(TrainingError, match=r"before step 1 of 3.* a loss of nan on \d+ held-out"):
        train(task, lambda row: None)
    store = LocalStore(Path(task.out_dir))
    assert not steps and not store.exists("model")
    require_json(store.read_bytes("metrics.jsonl").splitlines())

    # Mended weights are evaluated anew.
    save_file(sound, model / "model.safetensors", {"format": "pt"})
    train(task, lambda row: None)
    evaluations = [row for row in read_metrics(store) if is_evaluation(row)]
    assert [row["step"] for row in evaluations] == [0, 3] and store.exists("model/config.json")
