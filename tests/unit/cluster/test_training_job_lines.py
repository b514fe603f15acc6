"""What a training job says: where to get a base model, and what was done before a resume."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.cluster import training
from codepmp_ray.cluster.training import finetune
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import InputError
from codepmp_ray.runs import open_stage
from codepmp_ray.training.checkpoint_folders import marker_name
from codepmp_ray.training.metrics import METRICS_FILE
from codepmp_ray.training.task import Trunk
from tests.processes import PATIENCE_S


@pytest.mark.parametrize("data", [[], [{"path": "pairs.jsonl"}]])
def test_finetuning_without_a_pretrained_model_names_the_key_for_ones_own(
    tmp_path: Path, data: list[dict[str, Any]]
) -> None:
    finetuning = {"objective": "rm", "data": data}
    recipe = Recipe.model_validate({"run_dir": str(tmp_path), "finetuning": finetuning})
    with pytest.raises(InputError, match="'pretraining'") as caught:
        finetune(recipe)
    assert "python -m jobs.pretrain" in str(caught.value)
    assert "finetuning.model_name_or_path" in str(caught.value)


@pytest.mark.parametrize(
    ("checkpoints", "is_branch", "said"),
    [
        ([4, 8], False, "28 steps (8 done before)"),
        ([], False, "28 steps\n"),  # killed before its first checkpoint
        ([], True, "28 steps (9 done before)"),  # it goes on from its trunk's
    ],
)
def test_steps_done_before_are_those_of_the_checkpoint(
    tmp_path: Path, capsys, checkpoints: list[int], is_branch: bool, said: str
) -> None:
    recipe = Recipe(run_dir=str(tmp_path))
    stage = open_stage(recipe, "pretraining")
    rows = [{"step": step, "total_steps": 28, "loss": 1.0} for step in range(1, 11)]
    stage.store.put(METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows).encode())
    for step in checkpoints:
        stage.store.put(marker_name(step), b"{}")
    trunk = Trunk(str(tmp_path), recipe.pretraining, recipe.branches) if is_branch else None
    told, deadline_s = "", time.monotonic() + PATIENCE_S
    with training._watch(stage, trunk):
        while "\n" not in told and time.monotonic() < deadline_s:
            told += capsys.readouterr().err
            time.sleep(0.02)
    assert said in told.splitlines(keepends=True)[0]
