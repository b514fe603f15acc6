"""The candidates stage: sampled answers to training and evaluation problems (paper Table 10)."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.engine_actor import Row
from codepmp_ray.cluster.preflight import require_engines
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import EngineError
from codepmp_ray.evaluation.problems import split_problems
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.records import CANDIDATE, stable_id, table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.synthesis.engine import ContextOverflow, TextEngine
from codepmp_ray.synthesis.gates import clean


def sample_candidates(recipe: Recipe) -> dict[str, Any]:
    """Run or resume the stage; returns its summary.

    Raises ConfigError for more problems than the task has, ModelError and ResourceError as in
    synthesis.
    """
    stage = open_stage(recipe, "candidates")
    if stage.is_complete:
        return stage.summary()
    config = recipe.candidates
    engine = getattr(recipe.engines, config.role)
    shards = plan_shards(config)
    if engine.kind == "vllm":
        resolve_model(engine.model_name_or_path)
    require_engines([(config.role, engine)])
    stage.start(len(shards))
    start_s = time.monotonic()
    job = ShardJob(
        label="candidates",
        read_shard=partial(read_shard, config, engine.model_name_or_path),
        schema=CANDIDATE,
        stages=(PoolStage(config.role, engine, partial(CandidateSampler, config.sampling)),),
        split_rows=candidates_table,
        out_dir=stage.uri,
        rows_per_shard=sum(map(len, shards)) / max(1, len(shards)),
    )
    run_shards(job, len(shards))
    require_all_shards(stage.ledger, len(shards))
    stage.ledger.sweep(("candidates",))
    candidates = stage.ledger.read("candidates", ["problem_id", "num_tokens", "finish_reason"])
    reasons = candidates.column("finish_reason").to_pylist()
    stage.complete(
        {
            "num_problems": len(set(candidates.column("problem_id").to_pylist())),
            "num_candidates": candidates.num_rows,
            "num_cut_off": reasons.count("length"),
            "num_failed": reasons.count("error"),
            "num_tokens": sum(candidates.column("num_tokens").to_pylist()),
            "duration_s": round(time.monotonic() - start_s, 1),
        }
    )
    return stage.summary()


def plan_shards(config: CandidatesConfig) -> list[list[Row]]:
    """Rows still without an answer, `problems_per_shard` problems to a shard."""
    rows_of_problem = [
        [
            {
                "candidate_id": stable_id(problem.problem_id, split, str(index)),
                "problem_id": problem.problem_id,
                "split": split,
                "sample_index": index,
                "prompt": problem.prompt,
            }
            for index in range(getattr(config, f"num_{split}_samples"))
        ]
        for split, problems in split_problems(config).items()
        for problem in problems
    ]
    size = config.problems_per_shard
    return [
        [row for rows in rows_of_problem[start : start + size] for row in rows]
        for start in range(0, len(rows_of_problem), size)
    ]


def read_shard(config: CandidatesConfig, model: str, shard_id: int) -> pa.Table:
    """One shard's rows; planned anew in the task, which costs less than shipping the plan."""
    rows = [{**row, "model": model} for row in plan_shards(config)[shard_id]]
    return table_from_rows(rows, CANDIDATE)


class CandidateSampler:
    """Answers one problem once. A request that fails becomes an empty answer, marked as such."""

    def __init__(self, sampling: SamplingConfig) -> None:
        self._sampling = sampling

    async def __call__(self, row: Row, engine: TextEngine) -> Row:
        try:
            answer = await engine.generate(row["prompt"], self._sampling)
        except (ContextOverflow, EngineError):
            return self.give_up(row, "")
        return {
            **row,
            "completion": clean(answer.text.strip()),
            "finish_reason": answer.finish_reason,
            "num_tokens": answer.num_tokens,
        }

    def give_up(self, row: Row, detail: str) -> Row:
        return {**row, "completion": "", "finish_reason": "error", "num_tokens": 0}


def candidates_table(rows: list[Row]) -> dict[str, pa.Table]:
    return {"candidates": table_from_rows(rows, CANDIDATE)}
