"""The evaluation stage: score every pool through the service, in resumable shards."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from codepmp_ray.client import RewardClient
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.evaluation.best_of_n import Pool, evaluation_pools, summarise
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.progress import Progress
from codepmp_ray.records import SCORE, table_from_rows
from codepmp_ray.runs import Stage, open_stage

RESULTS_FILE = "results.json"
_POOLS_PER_SHARD = 4
# Enough to hide the way there and back; the service batches what arrives together.
_NUM_REQUESTS_IN_FLIGHT = 2


def evaluate(recipe: Recipe, client: RewardClient, model: str) -> dict[str, Any]:
    """Score what is not scored yet and write results.json; returns its content.

    Raises InputError when an earlier stage is missing, and what `RewardClient.score` raises.
    """
    stage = open_stage(recipe, "evaluation")
    candidates = open_stage(recipe, "candidates").require()
    grades = open_stage(recipe, "grades").require()
    answers = candidates.ledger.read("candidates").to_pylist()
    grade_of = {row["candidate_id"]: row for row in grades.ledger.read("grades").to_pylist()}
    without = {row["problem_id"] for row in grade_of.values() if row["passed"] is None}
    pools, num_cut = evaluation_pools(answers, without)
    stage.start()
    start_s = time.monotonic()
    _score_pools(stage, client, pools)
    stage.ledger.sweep(("scores",))
    scores = stage.ledger.read("scores").to_pylist()
    wanted = {row["candidate_id"] for pool in pools for row in pool.candidates}
    marks = [row for name, row in grade_of.items() if name in wanted]
    training = [
        row | grade_of[row["candidate_id"]]
        for row in answers
        if row["split"] == "train" and row["candidate_id"] in grade_of
    ]
    results = {
        **summarise(pools, marks, scores, recipe.candidates, recipe.evaluation, training),
        "num_candidates_cut": num_cut,
        "num_not_gradable": len(without),
        "num_truncated": sum(row["truncated"] for row in scores),
        "model": model,
        "generator": str(pools[0].candidates[0]["model"]),
        "sandbox": grades.summary().get("sandbox", "unknown"),
    }
    stage.store.put(RESULTS_FILE, record_bytes(results, indent=2))
    stage.complete(
        {
            "num_problems": len(pools),
            "num_scores": len(scores),
            "verdict": results["verdict"],
            "duration_s": round(time.monotonic() - start_s, 1),
        }
    )
    return results


def read_results(recipe: Recipe) -> dict[str, Any]:
    """results.json of a finished stage. Raises InputError when it is not finished."""
    stage = open_stage(recipe, "evaluation").require()
    return read_record(stage.store.read_bytes(RESULTS_FILE))


def _score_pools(stage: Stage, client: RewardClient, pools: list[Pool]) -> None:
    shards = [pools[i : i + _POOLS_PER_SHARD] for i in range(0, len(pools), _POOLS_PER_SHARD)]
    missing = stage.ledger.missing_ids(len(shards))
    num_done = len(pools) - sum(len(shards[shard_id]) for shard_id in missing)
    with (
        Progress("scores", len(pools), "problems", done=num_done) as progress,
        ThreadPoolExecutor(_NUM_REQUESTS_IN_FLIGHT) as threads,
    ):
        progress.update(num_done)
        for shard_id in missing:
            rows: list[dict[str, Any]] = []
            for pool_rows in threads.map(lambda pool: score_pool(client, pool), shards[shard_id]):
                rows += pool_rows
                num_done += 1
                progress.update(num_done)
            stage.ledger.commit(shard_id, len(rows), {"scores": table_from_rows(rows, SCORE)})


def score_pool(client: RewardClient, pool: Pool) -> list[dict[str, Any]]:
    """SCORE rows of one pool."""
    scores = client.score(pool.prompt, [row["completion"] for row in pool.candidates])
    return [
        {
            "candidate_id": row["candidate_id"],
            "problem_id": pool.problem_id,
            "sample_index": row["sample_index"],
            "score": score.score,
            "num_tokens": score.num_tokens,
            "truncated": score.truncated,
        }
        for row, score in zip(pool.candidates, scores, strict=True)
    ]
