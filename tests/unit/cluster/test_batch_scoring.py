"""One row with the engine beside it, and how many engines there are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.cluster.batch_scoring import RowScorer, most_actors, pool_config, score_rows
from codepmp_ray.cluster.vllm_scorer import VLLMScorer
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.evaluation import BatchScoringConfig
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, EngineError
from codepmp_ray.io.shards import Piece
from codepmp_ray.records import table_from_rows
from codepmp_ray.scoring.batch_rows import IN_FLIGHT, parse_row
from codepmp_ray.scoring.protocol import Scores
from codepmp_ray.synthesis.engine import EngineDied
from tests.tiny_models import save_tiny_reward_model

GOOD = {"id": "q1", "prompt": "Add one.", "candidates": ["x + 1", "x", "x + 1"]}


def in_flight(raw: Any) -> dict[str, Any]:
    """The row as an actor gets it."""
    row = parse_row(raw, Piece("x", "x", 1, 1, 0, 1), 0, BatchScoringConfig(path="x"))
    return table_from_rows([row], IN_FLIGHT).to_pylist()[0]


class BrokenScorer:
    """A fake engine that refuses every row."""

    max_model_len = 128

    async def score_ids(self, prompt_ids: Any, responses: Any, timeout_s: Any = None) -> Scores:
        raise EngineError("no", "help")


def test_an_engine_that_fails_on_a_row_rejects_that_row(tmp_path: Path) -> None:
    scorer = RowScorer(str(save_tiny_reward_model(tmp_path)))
    row = asyncio.run(scorer(in_flight(GOOD), BrokenScorer()))
    assert (row["reject_reason"], row["reject_detail"]) == ("engine_error", "no")
    bad = in_flight({**GOOD, "prompt": ""})
    assert asyncio.run(scorer(bad, BrokenScorer())) == bad == scorer.give_up(bad, "killed")
    assert scorer.give_up(in_flight(GOOD), "killed")["reject_reason"] == "engine_crash"


class DyingScorer(BrokenScorer):
    async def score_ids(self, prompt_ids: Any, responses: Any, timeout_s: Any = None) -> Scores:
        raise EngineDied("gone")


def test_the_death_of_an_engine_reaches_the_actor(tmp_path: Path) -> None:
    """It writes down which rows were there; none of them is to blame yet."""
    row_scorer = RowScorer(str(save_tiny_reward_model(tmp_path)))
    with pytest.raises(EngineDied, match="gone"):
        asyncio.run(row_scorer(in_flight(GOOD), DyingScorer()))


def test_vllms_death_is_told_from_a_refused_row() -> None:
    """Through the group of tasks that a request is made of, without an engine."""
    scorer = VLLMScorer.__new__(VLLMScorer)
    scorer.vocab_size = 9
    for error in (EngineDied("gone"), EngineError("refused")):

        async def fail(ids: list[int], error: Exception = error) -> tuple[float, int]:
            raise error

        scorer._score_row = fail  # type: ignore[method-assign]
        with pytest.raises(type(error), match=str(error)):
            asyncio.run(scorer.score_ids([1], [[2], [3]]))


def test_the_pool_is_as_large_as_the_cluster_has_room_for() -> None:
    nodes = {"node:10.0.0.1": 1.0, "node:10.0.0.2": 1.0, "node:__internal_head__": 1.0}
    pool = EngineConfig(num_cpus=2)
    assert most_actors(pool, 0.0, {**nodes, "CPU": 64.0}) == 2
    assert most_actors(pool, 2.0, {**nodes, "CPU": 64.0, "GPU": 8.0}) == 4
    assert most_actors(pool, 1.0, {**nodes, "CPU": 6.0, "GPU": 8.0}) == 3
    recipe = parse_recipe(
        {"batch_scoring": {"max_actors": 5}, "serving": {"num_cpus": 3, "num_gpus": 2}}, "test"
    )
    made = pool_config(recipe, "m")
    assert (made.max_actors, made.num_cpus, made.num_gpus) == (5, 3, 2)
    with pytest.raises(ConfigError, match=r"min_actors=3 exceeds max_actors=2"):
        parse_recipe({"batch_scoring": {"min_actors": 3, "max_actors": 2}}, "test")


def test_a_recipe_without_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_scoring\.path is not set"):
        score_rows(Recipe())
