"""jobs.audit as it is run: its own service with a tiny model, pairs and a pool of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codepmp_ray.command import evaluation as job
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.evaluation.audit.run import folder_of
from codepmp_ray.evaluation.audit.served import require_passed_audit
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.storage import open_store
from tests.tiny_models import save_tiny_reward_model

LIMITS = {"min_accuracy": 0, "max_length_correlation": 1, "max_style_r2": 1,
          "max_dressing_gain": 1, "max_spoiled_wins": 1, "max_over_optimisation": 1,
          "max_generator_r2": 1}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    pairs, pool = tmp_path / "pairs.jsonl", tmp_path / "pool.jsonl"
    with pairs.open("w") as file:
        for i in range(8):
            row = {"prompt": f"{i} + 1?", "chosen": f"It is {i + 1}.", "rejected": f"It is {i}."}
            file.write(json.dumps(row) + "\n")
    with pool.open("w") as file:
        for i in range(5):
            candidates = [
                {"text": f"{'So it' if n % 2 else 'It'} is {i + n % 3}.", "model": f"m{n % 2}",
                 "correct": n % 3 == 1}
                for n in range(7)
            ]  # fmt: skip
            row = {"id": i, "question": f"{i} + 1?", "candidates": candidates}
            file.write(json.dumps(row) + "\n")
    fields = {
        "run_dir": str(tmp_path / "run"),
        "accuracy": {"data": [{"path": str(pairs)}]},
        "audit": {"edits": ["padding", "wrong_final_answer"], "pools": [str(pool)],
                  "max_problems": 4, "problems_per_shard": 3, **LIMITS},
        "evaluation": {"num_bootstrap": 200},
        "serving": {"model_path": str(save_tiny_reward_model(tmp_path / "model")),
                    "engine": "torch", "max_model_len": 512, "num_cpus": 0.5, "port": 0,
                    "max_candidates": 4},
    }  # fmt: skip
    return parse_recipe(fields, "test")


@pytest.mark.rehearsal
def test_the_job_scores_pairs_and_pools_and_opens_the_gate(
    ray_cluster: None, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    job.audit(recipe)
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    shown = capsys.readouterr().out
    assert "The model passes." in shown and store.locate("audit.html") in shown
    found = json.loads(store.read_bytes("audit.json"))
    (pool,) = found["pools"]
    assert (pool["num_problems"], pool["num_answers"], pool["num_unused"]) == (4, 28, 7)
    assert pool["generators"]["effects"].keys() == {"m0", "m1"}
    assert pool["over_optimisation"]["ks"] == [1, 2, 4, 7]
    ledger = ShardLedger(store.sub("pools"))
    assert ledger.committed_ids() == {0, 1}
    rows = ledger.read("audit_pool_scores").to_pylist()
    # Seven candidates go in two requests of at most four texts, and every row has its own score.
    by_text: dict[tuple[str, bool, int], set[float]] = {}
    for row in rows:
        number = row["candidate_index"]
        by_text.setdefault((row["problem_id"], number % 2 == 1, number % 3), set()).add(
            row["score"]
        )
    assert len(rows) == 28 and all(len(scores) == 1 for scores in by_text.values())
    assert len({row["score"] for row in rows}) > 8
    require_passed_audit(recipe)
