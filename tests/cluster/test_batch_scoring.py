"""Batch scoring on a real Ray, with the torch scorer and a tiny model."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from codepmp_ray.analysis.closing import stage_rows
from codepmp_ray.analysis.rundata import load_run
from codepmp_ray.analysis.status import print_status
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError, ResourceError
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.runs import open_stage
from codepmp_ray.scoring.best_of_n import best_of_n
from codepmp_ray.scoring.torch_scorer import TorchScorer
from tests.processes import running, wait_until
from tests.tiny_models import save_tiny_reward_model

ROOT = Path(__file__).resolve().parents[2]
NUM_GOOD = 60
NUM_SHARDS = 20 + 12
COUNTS = {
    "num_rows": NUM_GOOD + 4,
    "num_scored": NUM_GOOD,
    "num_rejected": 4,
    "rejected_by_reason": {
        "no_candidates": 1,
        "over_max_length": 1,
        "bad_conversation": 1,
        "unreadable": 1,
    },
    "num_candidates": 150,
    "num_truncated": 15,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("with a space") / "rm" / "model")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good rows in two files, an empty file, and four bad rows."""
    folder = tmp_path_factory.mktemp("rows")
    good = [
        {
            "id": f"q{i}",
            "prompt": f"Add {i} to x.",
            "candidates": [f"x + {i}", "x" * (i % 7), f"x + {i}", "y" * 300][: 1 + i % 4],
        }
        for i in range(NUM_GOOD)
    ]
    pq.write_table(pa.Table.from_pylist(good[:40]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist(good).slice(0, 0), folder / "empty.parquet")
    bad = [
        {"id": "none", "prompt": "p", "candidates": []},
        {"id": "long", "prompt": "p" * 300, "candidates": ["a"]},
        {"id": "both", "prompt": "p", "messages": [], "candidates": ["a"]},
    ]
    lines = [json.dumps(row) for row in good[40:] + bad] + ["{"]
    (folder / "b.jsonl").write_text("\n".join(lines))
    return folder


def recipe_for(run_dir: Path, model: Path, rows: Path, **serving: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "scored",
            "run_dir": str(run_dir),
            "serving": {
                "engine": "torch",
                "model_path": str(model),
                "max_model_len": 256,
                "num_cpus": 0.5,
                **serving,
            },
            "batch_scoring": {"path": str(rows), "rows_per_shard": 2},
        },
        "test",
    )


def files_of(recipe: Recipe) -> dict[str, bytes]:
    """Name without the attempt -> content, of every file in the tables' folders."""
    folder = Path(open_stage(recipe, "scoring").uri)
    return {
        str(file.relative_to(folder)).split(".")[0]: file.read_bytes()
        for table in ("scores", "rejected")
        for file in sorted((folder / table).rglob("*.parquet"))
    }


@pytest.mark.rehearsal
def test_a_killed_job_resumes_to_the_same_files_as_one_that_ran_through(
    ray_cluster: None, model: Path, rows: Path, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.batch_scoring import score_rows

    whole = recipe_for(tmp_path / "whole", model, rows)
    killed = recipe_for(tmp_path / "killed", model, rows)
    recipe_file = tmp_path / "killed.json"  # JSON is YAML
    recipe_file.write_text(killed.model_dump_json())
    ledger, log = open_stage(killed, "scoring").ledger, tmp_path / "job.log"
    with running("-m", "jobs.score", "--config", str(recipe_file), log=log) as job:
        wait_until(lambda: ledger.committed_ids() or job.poll() is not None, log.read_text, 0.01)
    assert 0 < len(ledger.committed_ids()) < NUM_SHARDS, log.read_text()
    summary = score_rows(killed)
    score_rows(whole)
    assert len(files_of(whole)) == 2 * NUM_SHARDS
    assert files_of(killed) == files_of(whole)
    assert {name: summary[name] for name in COUNTS} == COUNTS
    assert score_rows(killed) == summary  # finished work is found again


@pytest.mark.rehearsal
def test_scores_are_those_of_the_service(
    ray_cluster: None, model: Path, rows: Path, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.batch_scoring import score_rows

    config = recipe_for(tmp_path, model, rows)
    summary = score_rows(config)
    assert {name: summary[name] for name in COUNTS} == COUNTS
    stage = open_stage(config, "scoring")
    asked = pq.read_table(rows / "a.parquet").to_pylist()
    found = pq.read_table(Path(stage.uri) / "scores").sort_by("place").to_pylist()
    found.sort(key=lambda row: int(row["row_id"][1:]))
    assert [row["row_id"] for row in found[:40]] == [row["id"] for row in asked]
    assert len(found) == NUM_GOOD
    encoder, scorer = Encoder.load(model), TorchScorer.load(model, 256)
    for row, given in zip(found[:8], asked, strict=False):
        direct = asyncio.run(best_of_n(encoder, scorer, given["prompt"], given["candidates"]))
        assert row["scores"] == pytest.approx([item.score for item in direct.candidates], abs=1e-5)
        assert row["best_candidate"] == given["candidates"][direct.best_index]
        assert row["truncated"] == [text.startswith("yyy") for text in given["candidates"]]
    screen = io.StringIO()
    print_status(config, Console(file=screen, width=160))
    assert "scoring" in screen.getvalue() and "32/32" in screen.getvalue()
    assert stage_rows(load_run(config))[-1].came_out == "candidates of 60 of 64 rows scored"


def test_what_cannot_be_scored_is_refused_before_anything_starts(
    ray_cluster: None, model: Path, rows: Path, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.batch_scoring import score_rows

    def refused(error: type[Exception], match: str, recipe: Recipe) -> None:
        with pytest.raises(error, match=match):
            score_rows(recipe)
        assert not open_stage(recipe, "scoring").has_begun

    refused(InputError, "is not an exported reward model", recipe_for(tmp_path, tmp_path, rows))
    refused(InputError, "does not exist", recipe_for(tmp_path, model, tmp_path / "none"))
    long = recipe_for(tmp_path, model, rows, max_model_len=4096)
    refused(ConfigError, "exceeds the 512 positions", long)
    wide = recipe_for(tmp_path, model, rows, num_cpus=1000)
    refused(ResourceError, r"needs 1000 CPU.*has|serving\.num_cpus", wide)
