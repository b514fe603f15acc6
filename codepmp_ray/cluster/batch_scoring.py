"""The scoring stage: rows of prompts and candidates -> committed shards of rewards."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NoReturn

import pyarrow.compute as pc

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.device_time import cost_of
from codepmp_ray.cluster.engine_actor import Row
from codepmp_ray.cluster.preflight import engine_gpus, possible_resources, require_engines
from codepmp_ray.cluster.scorers import make_scorer
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.cluster.vllm_process import first_line
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, DeadlineError, EngineError
from codepmp_ray.io.shards import stored_plan
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.runs import open_stage, reward_model
from codepmp_ray.scoring.batch_rows import (
    IN_FLIGHT,
    plan_row,
    read_rows,
    refuse,
    row_source,
    scored,
    split_rows,
)
from codepmp_ray.scoring.best_of_n import RequestPlan, rank
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.scoring.protocol import Scorer
from codepmp_ray.shard_stats import rejects_by_reason, token_sums
from codepmp_ray.storage import absolute
from codepmp_ray.synthesis.engine import EngineDied

_POOL = "scorer"


def score_rows(recipe: Recipe) -> dict[str, Any]:
    """Run or resume the stage; returns its summary.

    Raises ConfigError without batch_scoring.path, InputError for files that cannot be read or
    changed since the stage began, and for a folder that is no exported model, ResourceError when
    the scorers do not fit the cluster.
    """
    config, serving = recipe.batch_scoring, recipe.serving
    if not config.path:
        raise ConfigError(
            "batch_scoring.path is not set.",
            "Name a Parquet or JSON lines file (or a folder) of prompts and candidates.",
        )
    stage = open_stage(recipe, "scoring")
    if stage.is_complete:
        return stage.summary()
    model = absolute(reward_model(recipe))  # actors have other working directories
    require_model(serving, model)
    pool = pool_config(recipe, model)
    require_engines([(_POOL, pool)], "serving.num_cpus, serving.num_gpus or batch_scoring's")
    stage.store.require_ready()
    pieces = stored_plan(stage.store, row_source(config))
    stage.start(len(pieces), {"scorer": model})
    start_s = time.monotonic()
    make_engine = partial(_scorer, model, serving, engine_gpus(pool))
    job = ShardJob(
        label="scoring",
        read_shard=partial(read_rows, pieces, config),
        schema=IN_FLIGHT,
        stages=(PoolStage(_POOL, pool, partial(RowScorer, model, serving.template), make_engine),),
        split_rows=split_rows,
        out_dir=stage.uri,
        rows_per_shard=sum(piece.stop - piece.first for piece in pieces) / max(1, len(pieces)),
    )
    run_shards(job, len(pieces))
    require_all_shards(stage.ledger, len(pieces))
    stage.ledger.sweep(("scores", "rejected"))
    took = {"model": model, "duration_s": round(time.monotonic() - start_s, 1)}
    stage.complete(summary_of(stage.ledger) | took | {"cost": cost_of(stage)})
    return stage.summary()


def pool_config(recipe: Recipe, model: str) -> EngineConfig:
    """The scorers' pool in the terms of the shard graph."""
    config, serving = recipe.batch_scoring, recipe.serving
    pool = EngineConfig(
        model_name_or_path=model,
        num_cpus=serving.num_cpus,
        num_gpus=serving.num_gpus,
        min_actors=config.min_actors,
        max_actors=config.max_actors or config.min_actors,
        max_rows_in_flight=config.max_rows_in_flight,
        crash_patience=config.crash_patience,
        max_crashes=config.max_crashes,
    )
    if config.max_actors is not None:
        return pool
    most = most_actors(pool, engine_gpus(pool), possible_resources())
    return pool.model_copy(update={"max_actors": max(config.min_actors, most)})


def most_actors(pool: EngineConfig, num_gpus: float, resources: dict[str, float]) -> int:
    """As many as there are GPUs for; a scorer without a GPU takes every core of its node."""
    if num_gpus:
        by_gpu = resources.get("GPU", 0.0) / num_gpus
        return int(min(by_gpu, resources.get("CPU", 0.0) / pool.num_cpus))
    return sum(name.startswith("node:") and "head" not in name for name in resources)


class RowScorer:
    """Scores the candidates of one row. Lives in the actor, beside the engine."""

    def __init__(self, model: str, template: Literal["recorded", "own"] = "recorded") -> None:
        self._encoder = Encoder.load(resolve_model(model), template)
        # One thread: a long text must not hold up the event loop, and the tokenizer is not shared.
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizing")

    async def __call__(self, row: Row, engine: Scorer) -> Row:
        if row["reject_reason"]:
            return row
        loop = asyncio.get_running_loop()
        plan = await loop.run_in_executor(
            self._tokenizing, plan_row, row, self._encoder, engine.max_model_len
        )
        if not isinstance(plan, RequestPlan):
            return plan
        try:
            return scored(
                row, rank(plan, await engine.score_ids(plan.prompt_ids, plan.response_ids))
            )
        except (EngineError, DeadlineError) as error:
            return refuse(row, RejectReason.ENGINE_ERROR, error.problem)

    def give_up(self, row: Row, detail: str) -> Row:
        return row if row["reject_reason"] else refuse(row, RejectReason.ENGINE_CRASH, detail)


def summary_of(ledger: ShardLedger) -> dict[str, Any]:
    """Counts of the committed shards."""
    totals = ledger.totals()
    tokens = token_sums(totals)
    num_candidates = num_truncated = 0
    for part in ledger.read_each("scores", ["num_candidates", "truncated"]):
        num_candidates += sum(part.column("num_candidates").to_pylist())
        flags = pc.call_function("list_flatten", [part.column("truncated")])
        num_truncated += sum(flags.to_pylist())
    return {
        "num_rows": totals.num_input_rows,
        "num_scored": totals.num_rows["scores"],
        "num_rejected": totals.num_rows["rejected"],
        "rejected_by_reason": rejects_by_reason(totals),
        "num_candidates": num_candidates,
        "num_truncated": num_truncated,
        "num_prompt_tokens": tokens.get("prompt_num_tokens", 0),
        "num_candidate_tokens": tokens.get("candidate_num_tokens", 0),
    }


def _scorer(model: str, serving: ServingConfig, num_gpus: float, pool: EngineConfig) -> Scorer:
    return make_scorer(model, serving, num_gpus, on_death=_died)


def _died(error: Exception) -> NoReturn:
    """The actor writes down what was with the engine before it leaves."""
    raise EngineDied(first_line(error)) from error
