"""The synthesis stage: snippets of the corpus stage -> committed shards of preference pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from codepmp_ray.cluster.completeness import require_all_shards
from codepmp_ray.cluster.device_time import cost_of
from codepmp_ray.cluster.execution import execute_and_split
from codepmp_ray.cluster.limits import PriceLimit, RejectFuse
from codepmp_ray.cluster.preflight import require_engines
from codepmp_ray.cluster.shard_graph import PoolStage, ShardJob, run_shards
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.synthesis import EXECUTED
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.evaluation.sandbox import Sandbox
from codepmp_ray.hub_models import pin_engine
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.sources import require_weights
from codepmp_ray.records import SNIPPET
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.continuations import split_continuations
from codepmp_ray.synthesis.counts import row_counts, sets_in_use
from codepmp_ray.synthesis.history.changes import CHANGE, read_changes
from codepmp_ray.synthesis.history.pairs import plan_history, split_changes
from codepmp_ray.synthesis.hops import IN_FLIGHT, RowProcessor
from codepmp_ray.synthesis.pairs import split_rows
from codepmp_ray.synthesis.plan import PoolPlan, plan_pools
from codepmp_ray.synthesis.prediction import prediction_error
from codepmp_ray.synthesis.prompts import prompt_texts
from codepmp_ray.synthesis.web.files import stored_plan
from codepmp_ray.synthesis.web.pairs import THREAD, read_threads, split_threads


def synthesize(recipe: Recipe) -> dict[str, Any]:
    """Run or resume the stage; returns its summary. Finished work is not done again.

    Raises InputError when the corpus stage is missing, ModelError for a model path that does not
    exist, ConfigError for an evaluation set that cannot be read, ResourceError when the engines do
    not fit the cluster, SandboxUnavailable when answers are to be executed and cannot be, and
    LimitReached for what `planning` limits.
    """
    stage = open_stage(recipe, "synthesis")
    if stage.is_complete:
        return stage.summary()
    load_evaluation_index(recipe.corpus_in_use.decontamination)  # refused before any engine starts
    pools = pinned_pools(recipe)
    if recipe.synthesis.construction == "web_pairs":
        job, num_shards = _web_job(recipe, stage)
    elif recipe.synthesis.construction == "commits":
        history = plan_history(recipe, stage.store)
        read, split = (
            partial(read_changes, history),
            partial(split_changes, config=recipe.synthesis),
        )
        job, num_shards = (
            ShardJob("synthesis", read, CHANGE, (), split, stage.uri),
            len(history.shards),
        )
    else:
        corpus = open_stage(recipe, "corpus").require()
        check_engines(pools)
        read = partial(read_shard_of_stage, corpus.uri, "snippets")
        totals = corpus.ledger.totals()
        num_shards, num_rows = totals.num_shards, totals.num_rows["snippets"]
        if recipe.synthesis.construction == "continuation":
            split = partial(split_continuations, config=recipe.synthesis)
            job = ShardJob("synthesis", read, SNIPPET, (), split, stage.uri)
        else:
            job = snippet_job(
                recipe, pools, "synthesis", read, stage.uri, num_rows / max(1, num_shards)
            )
    price = PriceLimit(stage)
    fuse = RejectFuse(stage.ledger, recipe.planning.max_reject_share)

    def after_commit(shard_id: int, num_rows: int, num_rejected: int) -> None:
        fuse.committed(shard_id, num_rows, num_rejected)
        price()

    price()
    stage.start(num_shards, {pool.name: pool.engine.written_name for pool in pools})
    start_s, num_before = time.monotonic(), stage.ledger.totals().num_shards
    run_shards(job, num_shards, after_commit)
    require_all_shards(stage.ledger, num_shards)
    duration_s = round(time.monotonic() - start_s, 1)
    counts = row_counts(stage.ledger, sets_in_use(recipe))
    summary = counts | {"duration_s": duration_s, "cost": cost_of(stage)}
    if not num_before and (told := prediction_error(stage, counts["num_snippets"], duration_s)):
        print(told)
    # Imported here: the workers load this module too and need no plotting.
    from codepmp_ray.analysis.card import write_card

    hops = [hop for pool in pools for hop in pool.hops]
    write_card(recipe, prompt_texts(hops, recipe.synthesis.prompts))
    stage.complete(summary)
    return stage.summary()


def pinned_pools(recipe: Recipe) -> list[PoolPlan]:
    """The pools of the recipe's construction, hub models at the commits that the run keeps."""
    return [
        replace(pool, engine=pin_engine(recipe.run_dir, pool.engine))
        for pool in plan_pools(recipe.synthesis, recipe.engines)
    ]


def check_engines(pools: list[PoolPlan]) -> None:
    """Raise ModelError or ResourceError for what cannot run, before anything starts."""
    for pool in pools:
        if pool.engine.kind == "vllm":
            require_weights(pool.engine.written_name)
    require_engines([(pool.name, pool.engine) for pool in pools])


def snippet_job(
    recipe: Recipe,
    pools: list[PoolPlan],
    label: str,
    read_shard: Callable[[int], pa.Table],
    out_dir: str,
    rows_per_shard: float,
) -> ShardJob:
    """Snippets through the hops of the recipe's construction.

    Raises SandboxUnavailable where answers would have to be executed and cannot be.
    """
    split = split_rows
    if recipe.synthesis.construction in EXECUTED:
        Sandbox.detect(recipe.synthesis.sandbox)  # raises before any model is loaded
        split = execute_and_split
    return ShardJob(
        label=label,
        read_shard=read_shard,
        schema=IN_FLIGHT,
        stages=tuple(
            PoolStage(
                pool.name,
                pool.engine,
                partial(
                    RowProcessor, recipe.synthesis, pool.hops, recipe.corpus_in_use.decontamination
                ),
            )
            for pool in pools
        ),
        split_rows=partial(split, config=recipe.synthesis, engines=recipe.engines),
        out_dir=out_dir,
        rows_per_shard=rows_per_shard,
    )


def _web_job(recipe: Recipe, stage: Stage) -> tuple[ShardJob, int]:
    """Threads instead of snippets, and no engine: the corpus stage is not needed."""
    threads = recipe.synthesis.threads
    pieces = stored_plan(stage.store, threads)
    job = ShardJob(
        label="synthesis",
        read_shard=partial(read_threads, pieces, threads),
        schema=THREAD,
        stages=(),
        split_rows=partial(
            split_threads,
            config=recipe.synthesis,
            decontamination=recipe.corpus_in_use.decontamination,
        ),
        out_dir=stage.uri,
    )
    return job, len(pieces)


def read_shard_of_stage(stage_dir: str, table: str, shard_id: int) -> pa.Table:
    """Rows of one committed shard of another stage; runs in a task."""
    return ShardLedger(open_store(stage_dir)).read_shard(table, shard_id)
