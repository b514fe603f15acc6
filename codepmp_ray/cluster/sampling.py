"""The candidates stage: answers to training and evaluation problems (paper Table 10).

Sampled by a generator, or where there is nothing to sample taken as they are.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.device_time import cost_of
from codepmp_ray.cluster.engine_actor import Row
from codepmp_ray.cluster.limits import PriceLimit
from codepmp_ray.cluster.preflight import require_engines
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.config.evaluation import CandidatesConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import EngineError
from codepmp_ray.evaluation.given_candidates import are_given, write_given_candidates
from codepmp_ray.evaluation.problems import split_problems
from codepmp_ray.evaluation.tasks.base import Problem
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.hub_models import pin_engine
from codepmp_ray.modeling.sources import require_weights
from codepmp_ray.records import CANDIDATE, stable_id, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.synthesis.engine import ContextOverflow, TextEngine
from codepmp_ray.synthesis.gates import clean
from codepmp_ray.synthesis.plan import require_room
from codepmp_ray.synthesis.thoughts import split_thought


def sample_candidates(recipe: Recipe) -> dict[str, Any]:
    """Run or resume the stage; returns its summary.

    Raises ConfigError for more problems than the task has, ModelError and ResourceError as in
    synthesis.
    """
    stage = open_stage(recipe, "candidates")
    if stage.is_complete:
        return stage.summary()
    config = recipe.candidates
    start_s = time.monotonic()
    if are_given(config):
        stage.start()
        given = write_given_candidates(stage.ledger, config)
        require_all_shards(stage.ledger, given["num_shards"])
        return _complete(stage, start_s, given)
    engine = pin_engine(recipe.run_dir, recipe.generator)
    shards = plan_shards(config)
    if engine.kind == "vllm":
        require_weights(engine.written_name)
    name = "generator" if config.engine else config.role
    require_room("candidates.sampling", config.sampling, engine, name)
    require_engines([(name, engine)])
    stage.start(len(shards), {name: engine.written_name})
    instruction = problem_task(config.task).instruction
    make_sampler = partial(CandidateSampler, config.sampling, instruction)
    job = ShardJob(
        label="candidates",
        read_shard=partial(read_shard, config, engine.model_name_or_path),
        schema=CANDIDATE,
        stages=(PoolStage(name, engine, make_sampler),),
        split_rows=candidates_table,
        out_dir=stage.uri,
        rows_per_shard=sum(num for shard in shards for _, _, num in shard) / max(1, len(shards)),
    )
    price = PriceLimit(stage)
    price()
    run_shards(job, len(shards), lambda *counts: price())
    require_all_shards(stage.ledger, len(shards))
    return _complete(stage, start_s, {})


def _complete(stage: Stage, start_s: float, counts: dict[str, int]) -> dict[str, Any]:
    stage.ledger.sweep(("candidates", "rejected"))
    candidates = stage.ledger.read("candidates", ["problem_id", "num_tokens", "finish_reason"])
    reasons = candidates.column("finish_reason").to_pylist()
    stage.complete(
        {
            "num_problems": len(set(candidates.column("problem_id").to_pylist())),
            "num_candidates": candidates.num_rows,
            "num_cut_off": reasons.count("length"),
            "num_failed": reasons.count("error"),
            "num_tokens": sum(filter(None, candidates.column("num_tokens").to_pylist())),
            **counts,
            "cost": cost_of(stage),
            "duration_s": round(time.monotonic() - start_s, 1),
        }
    )
    return stage.summary()


def plan_shards(config: CandidatesConfig) -> list[list[tuple[str, Problem, int]]]:
    """(split, problem, number of samples) by shard, `problems_per_shard` problems to each."""
    asked = [
        (split, problem, getattr(config, f"num_{split}_samples"))
        for split, problems in split_problems(config).items()
        for problem in problems
    ]
    size = config.problems_per_shard
    return [asked[start : start + size] for start in range(0, len(asked), size)]


def read_shard(config: CandidatesConfig, model: str, shard_id: int) -> pa.Table:
    """One shard's rows, still without an answer.

    Planned anew in the task, which costs less than shipping the plan.
    """
    rows = [
        {
            "candidate_id": stable_id(problem.problem_id, split, str(index)),
            "problem_id": problem.problem_id,
            "split": split,
            "sample_index": index,
            "prompt": problem.prompt,
            "model": model,
        }
        for split, problem, num_samples in plan_shards(config)[shard_id]
        for index in range(num_samples)
    ]
    return table_from_rows(rows, CANDIDATE)


class CandidateSampler:
    """Answers one problem once. A request that fails becomes an empty answer, marked as such."""

    def __init__(self, sampling: SamplingConfig, instruction: str = "") -> None:
        self._sampling = sampling
        self._instruction = instruction

    async def __call__(self, row: Row, engine: TextEngine) -> Row:
        try:
            answer = await engine.generate(row["prompt"] + self._instruction, self._sampling)
        except (ContextOverflow, EngineError):
            return self.give_up(row, "")
        text, is_thought = split_thought(answer.text)
        return {
            **row,
            # A thought without an end is no answer.
            "completion": "" if is_thought or answer.is_thought else clean(text.strip()),
            "finish_reason": answer.finish_reason,
            "num_tokens": answer.num_tokens,
        }

    def give_up(self, row: Row, detail: str) -> Row:
        return {**row, "completion": "", "finish_reason": "error", "num_tokens": 0}


def candidates_table(rows: list[Row]) -> dict[str, pa.Table]:
    return {"candidates": table_from_rows(rows, CANDIDATE)}
