"""Training jobs under Ray Train: stopped and resumed, and branched into a scaling curve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from codepmp_ray.cluster.training import pretrain
from codepmp_ray.config.recipe import Recipe, branch_recipe, load_recipe
from codepmp_ray.records import PAIR, table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.training.metrics import read_metrics
from codepmp_ray.training.task import Trunk
from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_model_dir: Path, preference_rows: list[dict]) -> Path:
    """A recipe whose synthesis stage is there: 24 pairs."""
    settings = {
        "run_dir": str(tmp_path / "a run"),
        "pretraining": {
            "model_name_or_path": str(tiny_model_dir),
            "batch_size": 5,
            "max_steps": 10,
            "num_train_epochs": 4,
            "learning_rate": 1e-3,
            "decay_ratio": 0.3,
            "max_length": 256,
            "max_tokens_per_micro_batch": 512,
            "eval_fraction": 0.2,
            "bf16": False,
            "num_workers": 1,
            "cpus_per_worker": 0.5,
        },
        "branches": {"factor": 1.5, "num_branches": 1, "finetune": False, "evaluate": False},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    stage = open_stage(load_recipe(file), "synthesis")
    rows = [{**dict.fromkeys(PAIR.names), **row} for row in preference_rows]
    stage.ledger.commit(0, len(rows), {"pairs": table_from_rows(rows, PAIR)})
    stage.complete({})
    return file


def start(job: str, file: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", f"jobs.{job}", "--config", str(file), *overrides],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def checkpoints(recipe: Recipe) -> list[int]:
    names = open_stage(recipe, "pretraining").store.list("checkpoints")
    return sorted(int(name[5:13]) for name in names if name.endswith(".json"))


@pytest.mark.rehearsal
def test_sigterm_leaves_a_checkpoint_of_the_last_step(recipe_file: Path) -> None:
    endless = ["pretraining.max_steps=100000", "pretraining.num_train_epochs=100000"]
    quiet = ["pretraining.save_steps=100000", *endless]
    recipe = load_recipe(recipe_file, quiet)
    stage = open_stage(recipe, "pretraining")
    job = start("pretrain", recipe_file, *quiet)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(row["step"] >= 3 for row in read_metrics(stage.store)):
            assert job.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.2)
        assert checkpoints(recipe) == []
        job.send_signal(signal.SIGTERM)
        output, _ = job.communicate(timeout=PATIENCE_S)
    finally:
        job.kill()
    assert job.returncode == 130, output
    assert "Stopping after a checkpoint" in output and "Run the same command again" in output
    last = read_metrics(stage.store)[-1]["step"]
    assert checkpoints(recipe) == [last] and last >= 3
    assert not stage.is_complete


@pytest.mark.rehearsal
def test_a_branch_job_finishes_what_an_earlier_one_left(recipe_file: Path) -> None:
    """The earlier one ended after the whole run, before its branch."""
    recipe = load_recipe(recipe_file)
    whole = open_stage(recipe, "pretraining")
    folder = Path(recipe.run_dir) / f"trunk-{whole.fingerprint}"
    pretrain(recipe, Trunk(str(folder), recipe.pretraining, recipe.branches), in_process=True)
    finished = whole.store.read_bytes("complete.json")
    assert folder.is_dir()

    job = start("branch", recipe_file)
    try:
        output, _ = job.communicate(timeout=PATIENCE_S)
    finally:
        job.kill()
    assert job.returncode == 0, output
    assert whole.store.read_bytes("complete.json") == finished  # not done again
    assert not folder.exists()

    own = open_stage(_branch(recipe), "pretraining")
    summary = own.summary()
    assert summary["num_steps"] == 7
    rows = read_metrics(own.store)
    shared = [row for row in rows if row["step"] <= 4]
    trunk = [row for row in read_metrics(whole.store) if row["step"] <= 4]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 8))
    assert [row | {"total_steps": 10} for row in shared] == trunk  # taken over, not computed
    assert summary["num_pairs_seen"] == sum(row["num_pairs"] for row in rows if "loss" in row)
    report = (Path(recipe.run_dir) / "report.html").read_text()
    assert 'id="scaling"' in report and f"{summary['num_pairs_seen']:,}" in report
    assert json.loads(finished)["num_steps"] == 10


def _branch(recipe: Recipe) -> Recipe:
    from codepmp_ray.config.branches import plan_branches

    (branch,) = plan_branches(recipe.pretraining, recipe.branches, 10)
    assert (branch.total_steps, branch.leaves_at) == (7, 4)
    return branch_recipe(recipe, branch, 10)
