"""A fake scorer that takes no time: what is left is the service itself. Benchmarks only."""

from __future__ import annotations

from typing import Any

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.scoring.protocol import Scorer, Scores
from codepmp_ray.serve.deployments import ScorerReplica


class ZeroCostScorer:
    """The reward is the number of tokens. No model is loaded and nothing is computed."""

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len

    async def score_ids(
        self, prompt_ids: list[int], responses: list[list[int]], timeout_s: float | None = None
    ) -> Scores:
        return Scores([float(len(ids)) for ids in responses])

    def stage_weights(self, folder: str) -> Any:
        raise NotImplementedError

    async def take_weights(self, staged: Any) -> None:
        raise NotImplementedError


class ZeroCostReplica(ScorerReplica):
    """The real replica, tokeniser included, over the fake scorer."""

    def make_scorer(self, model_path: str, config: ServingConfig, num_gpus: float) -> Scorer:
        return ZeroCostScorer(config.max_model_len)
