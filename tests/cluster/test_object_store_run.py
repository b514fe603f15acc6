"""Jobs with run_dir=s3://..., against a server of their own: the same rows as on a local disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ModelError, StorageError
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.runs import open_stage, reward_model
from tests.processes import PATIENCE_S, running, wait_until
from tests.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[2]
NUM_FILES = 15


@pytest.fixture(scope="module")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("code")
    for i in range(NUM_FILES):
        body = "\n".join(f"    v{j} = x + {i * 100 + j}" for j in range(4 + i % 5))
        (root / f"f{i:02d}.py").write_text(f"def own_{i}(x):\n{body}\n    return v0\n")
    (root / "broken.py").write_text("def f(:\n")
    return root


def recipe_data(run_dir: str, code: Path, latency_s: float = 0.0) -> dict[str, Any]:
    engine = {"kind": "fake", "engine_args": {"latency_s": latency_s}, "num_cpus": 0.5}
    return {
        "run_dir": run_dir,
        "corpus": {
            "source": {"kind": "folder", "path": str(code), "license": "MIT", "repo": "me/code"},
            "files_per_task": 4,
            "rows_per_shard": 3,
            "near_duplicates": {"enabled": False},
        },
        "engines": {
            role: {**engine, "model_name_or_path": f"fake-{role}"} for role in ("strong", "weak")
        },
        "candidates": {
            "num_train_problems": 2,
            "num_eval_problems": 2,
            "num_train_samples": 2,
            "num_eval_samples": 2,
            "problems_per_shard": 2,
        },
    }


def make(run_dir: str, code: Path) -> Recipe:
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = parse_recipe(recipe_data(run_dir, code), "test")
    build_corpus(recipe)
    synthesize(recipe)
    return recipe


def rows(recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    return {
        f"{stage}/{table}": sorted(
            open_stage(recipe, stage).ledger.read(table).to_pylist(), key=lambda row: str(row)
        )
        for stage, tables in (("corpus", ("snippets", "rejected")), ("synthesis", ("pairs",)))
        for table in tables
    }


def test_the_same_rows_as_on_a_disk_and_what_stands_on_them(
    ray_cluster, s3_bucket: str, code_folder: Path, tmp_path: Path, capsys
) -> None:
    from codepmp_ray.analysis.report import write_report
    from codepmp_ray.analysis.status import print_status
    from codepmp_ray.synthesis.purge import PurgeRequest, purge

    recipe = make(f"{s3_bucket}/runs/a run", code_folder)
    expected = rows(make(str(tmp_path / "run"), code_folder))
    assert rows(recipe) == expected
    assert len(expected["synthesis/pairs"]) == NUM_FILES
    stage = open_stage(recipe, "synthesis")
    assert stage.store.list("") == sorted(
        ["README.md", "_commits", "complete.json", "manifest.json", "pairs", "rejected"]
    )
    assert not open_stage(recipe, "corpus").store.list("extracted")

    source_id = expected["synthesis/pairs"][0]["source_id"]
    record = purge(stage, PurgeRequest(source_ids=frozenset({source_id})))
    assert record["num_pairs"] == 1
    assert stage.summary()["num_pairs"] == NUM_FILES - 1
    capsys.readouterr()
    print_status(recipe)
    assert "complete" in capsys.readouterr().out
    assert write_report(recipe) == f"{s3_bucket}/runs/a run/report.html"


@pytest.mark.rehearsal
def test_pilot_replay_and_candidates_work_there(
    ray_cluster, s3_bucket: str, code_folder: Path
) -> None:
    from codepmp_ray.cluster.grading import grade
    from codepmp_ray.cluster.pilot import run_pilot
    from codepmp_ray.cluster.replay import replay
    from codepmp_ray.cluster.sampling import sample_candidates

    recipe = make(f"{s3_bucket}/runs/another run", code_folder)
    assert run_pilot(recipe).num_rows == NUM_FILES
    assert replay(recipe, ("engine_error",))["num_rows"] == 0
    assert sample_candidates(recipe)["num_candidates"] == 8
    assert grade(recipe)["num_graded"] == 8


@pytest.mark.rehearsal
def test_models_are_trained_scored_and_served_there(
    ray_cluster,
    s3_bucket: str,
    tmp_path: Path,
    tiny_model_dir: Path,
    preference_rows: list[dict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from codepmp_ray.client import RewardClient
    from codepmp_ray.cluster.batch_scoring import score_rows
    from codepmp_ray.cluster.training import finetune, pretrain
    from codepmp_ray.modeling.sources import resolve_model
    from codepmp_ray.scoring.best_of_n import best_of_n
    from codepmp_ray.scoring.torch_scorer import TorchScorer
    from codepmp_ray.serve.launch import running_service

    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path / "a cache"))
    pairs, questions = tmp_path / "pairs.jsonl", tmp_path / "questions.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in preference_rows))
    candidates = ["def f(x):\n    return x + 1", "def f(x):\n    pass"]
    questions.write_text(json.dumps({"prompt": "Add 1.", "candidates": candidates}) + "\n")
    training = {
        "batch_size": 8,
        "max_length": 256,
        "max_tokens_per_micro_batch": 512,
        "max_steps": 2,
        "eval_fraction": 0.0,
        "bf16": False,
        "export_dtype": "float32",
        "use_gpu": False,
        "num_workers": 2,
        "cpus_per_worker": 0.5,
        "data": [{"path": str(pairs)}],
    }
    data = {
        "pretraining": {**training, "model_name_or_path": str(tiny_model_dir)},
        "finetuning": {**training, "objective": "rm"},
        "serving": {"engine": "torch", "max_model_len": 512, "num_cpus": 0.1, "port": 0},
        "batch_scoring": {"path": str(questions)},
    }
    there = parse_recipe({**data, "run_dir": f"{s3_bucket}/a run"}, "test")
    assert pretrain(there, in_process=True)["num_steps"] == finetune(there)["num_steps"] == 2
    assert score_rows(there)["num_candidates"] == 2
    # The trained bits are compared with those on a disk in tests/multiprocess.
    folder = resolve_model(reward_model(there))
    direct = best_of_n(Encoder.load(folder), TorchScorer.load(folder, 512), "Add 1.", candidates)
    expected = [item.score for item in asyncio.run(direct).candidates]
    (scores,) = open_stage(there, "scoring").ledger.read("scores")["scores"].to_pylist()
    assert scores == pytest.approx(expected, abs=1e-5)
    stage = open_stage(there, "finetuning")
    assert stage.store.list("checkpoints") == stage.store.list("ray") == []
    model = reward_model(there)
    assert model == f"{stage.uri}/model"
    with (
        running_service(there, model, with_tls=False) as service,
        RewardClient(service.url, service.api_key) as client,
    ):
        assert service.model_name == stage.folder
        choice = client.choose("Add 1.", candidates)
    assert choice.rewards == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ModelError, match=r"There is no model at s3://.*no config\.json"):
        finetune(there.model_copy(update={"finetuning": missing(there, f"{s3_bucket}/nowhere")}))


def missing(recipe: Recipe, model: str) -> TrainingConfig:
    return recipe.finetuning.model_copy(update={"model_name_or_path": model})


@pytest.mark.rehearsal
def test_a_driver_killed_in_the_middle_resumes(
    ray_cluster, s3_bucket: str, code_folder: Path, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.cluster.synthesis import synthesize

    data = recipe_data(f"{s3_bucket}/run", code_folder, latency_s=0.4)
    recipe = parse_recipe(data, "test")
    ledger, log = open_stage(recipe, "synthesis").ledger, tmp_path / "driver.log"
    build_corpus(recipe)
    with running(*job("synthesize", data, tmp_path), log=log) as driver:
        wait_until(lambda: ledger.committed_ids() or driver.poll() is not None, log.read_text)
        assert driver.poll() is None, log.read_text()
    before = {commit.shard_id: commit.attempt for commit in ledger.commits()}
    assert 0 < len(before) < NUM_FILES // 3
    summary = synthesize(recipe)
    assert summary["num_snippets"] == summary["num_pairs"] == NUM_FILES
    after = {commit.shard_id: commit.attempt for commit in ledger.commits()}
    assert after.items() >= before.items()  # what was done was not done again
    ids = ledger.read("pairs")["snippet_id"].to_pylist()
    assert len(ids) == len(set(ids)) == NUM_FILES


@pytest.mark.rehearsal
def test_a_fault_of_the_store_is_one_message_and_the_job_resumes(
    ray_cluster, s3_server: S3Server, s3_bucket: str, code_folder: Path, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.cluster.synthesis import synthesize

    data = recipe_data(f"{s3_bucket}/run", code_folder, latency_s=0.1)
    recipe = parse_recipe(data, "test")
    build_corpus(recipe)
    s3_server.fail("full", times=10_000, part="pairs/")
    try:
        log = tmp_path / "driver.log"
        with running(*job("synthesize", data, tmp_path), log=log) as driver:
            assert driver.wait(PATIENCE_S) == StorageError.exit_code
    finally:
        s3_server.fail(None)
    said = (tmp_path / "driver.log").read_text().splitlines()
    (line,) = [line for line in said if line.startswith("Error: ")]
    assert "Cannot write s3://" in line and "Traceback" not in "".join(said)
    assert not open_stage(recipe, "synthesis").is_complete
    assert synthesize(recipe)["num_pairs"] == NUM_FILES


def job(name: str, data: dict[str, Any], folder: Path) -> list[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(data))
    return ["-m", f"jobs.{name}", "--config", str(recipe)]
