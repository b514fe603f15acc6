"""The whole road with real parts at the smallest size: vLLM, Ray Train, sandbox, HTTP, report.

The strong answers are vLLM's; the weak ones and the candidates come from a fake engine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codepmp_ray.config.recipe import Recipe, load_recipe
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.runs import STAGE_JOBS, open_stage
from tests.tiny_models import tiny_llama_config

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "jobs" / "recipes" / "laptop.yaml"
# The server scores in fp32; sums in another order move a score of order one by about 1e-6.
SCORE_TOLERANCE = 1e-4
# It takes 200 s alone on two cores, most of it starting engines and workers, and more than twice
# that beside other tests on a busy machine: only a hang is to be caught here.
LIMIT_S = 900
SMALL = [
    "engines.strong.engine_args="
    "{max_num_seqs: 4, max_num_batched_tokens: 1024, enforce_eager: true}",
    # Threads of one forward wait for each other: beside other tests the second one costs time.
    "engines.strong.cpu_threads=1",
    # vLLM starts once: the pool of the weak model is the same code.
    "engines.weak={kind: fake, model_name_or_path: fake, num_cpus: 0.5}",
    "corpus.max_files=20",
    "corpus.max_snippets=4",
    "corpus.rows_per_shard=2",
    "synthesis.describe.max_tokens=48",
    "synthesis.chosen.max_tokens=48",
    "synthesis.rejected.max_tokens=48",
    # A tiny model seldom ends within a few tokens: the first sentence describes, the code up to the
    # first indentation answers. And of a dozen such answers, gates might leave none.
    'synthesis.describe.stop=["."]',
    'synthesis.chosen.stop=["    "]',
    'synthesis.rejected.stop=["    "]',
    "synthesis.gates.code=none",
    "synthesis.gates.max_length_ratio=null",
    # Grading, scores and the report need answers of any kind.
    "candidates.engine={kind: fake, model_name_or_path: fake, num_cpus: 0.5}",
    "candidates.num_train_problems=2",
    "candidates.num_eval_problems=2",
    "candidates.num_eval_samples=2",
    "pretraining.batch_size=2",
    "pretraining.max_steps=1",
    "pretraining.eval_fraction=0.0",
    "finetuning.num_workers=1",
    "finetuning.batch_size=2",
    "finetuning.max_steps=1",
    "finetuning.eval_fraction=0.0",
    "serving.engine=torch",  # vLLM's scores are compared in test_vllm_parity
    "serving.port=0",
    "evaluation.num_bootstrap=200",
]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is trained: two layers with SmolLM2's vocabulary, which take seconds, not minutes."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    smollm2 = resolve_model("builtin:smollm2-135m-instruct")
    folder = tmp_path_factory.mktemp("models") / "a backbone"
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    config = tiny_llama_config(tokenizer, max_position_embeddings=1024, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(run_dir: Path, backbone: Path) -> list[str]:
    return [f"run_dir={run_dir}", f"pretraining.model_name_or_path={backbone}", *SMALL]


def run(run_dir: Path, backbone: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-m", "jobs.pipeline", *settings(run_dir, backbone)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> tuple[Recipe, str]:
    run_dir = tmp_path_factory.mktemp("main job") / "run dir"
    done = run(run_dir, backbone)
    assert done.returncode == 0, done.stderr[-4000:]
    return load_recipe(RECIPE, settings(run_dir, backbone)), done.stdout


@pytest.mark.timeout(LIMIT_S + 50)
def test_every_stage_completes_and_every_snippet_is_accounted_for(finished) -> None:
    recipe, output = finished
    assert all(open_stage(recipe, name).is_complete for name in STAGE_JOBS)
    snippets = open_stage(recipe, "corpus").ledger.read("snippets", ["snippet_id"])
    synthesis = open_stage(recipe, "synthesis").ledger
    ids = []
    for table, column in (("pairs", "snippet_id"), ("rejected", "row_id")):
        rows = synthesis.read(table)
        ids += rows.column(column).to_pylist() if rows.num_columns else []
    assert sorted(ids) == sorted(snippets.column("snippet_id").to_pylist())
    assert len(ids) == 4
    report = re.search(r"Report: (.*report\.html)", output)
    assert report and Path(report.group(1)).stat().st_size > 10_000


def test_the_exported_model_gives_the_servers_scores_in_plain_transformers(finished) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from codepmp_ray.preference.tokenization import Encoder

    recipe, _ = finished
    folder = Path(open_stage(recipe, "finetuning").uri) / "model"
    encoder = Encoder.load(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    candidates = {
        row["candidate_id"]: row
        for row in open_stage(recipe, "candidates").ledger.read("candidates").to_pylist()
    }
    served = open_stage(recipe, "evaluation").ledger.read("scores").to_pylist()
    assert len(served) == 4
    for row in served:
        candidate = candidates[row["candidate_id"]]
        (ids,) = encoder.encode(candidate["prompt"], [candidate["completion"]]).sequences
        with torch.no_grad():
            score = model(torch.tensor([ids])).logits.item()
        assert score == pytest.approx(row["score"], abs=SCORE_TOLERANCE)


def test_a_second_run_finds_everything_done(finished, backbone: Path) -> None:
    recipe, _ = finished
    again = run(Path(recipe.run_dir), backbone)
    assert again.returncode == 0, again.stderr[-4000:]
    assert "0 of 7 stages to run" in again.stderr and ": running" not in again.stderr
