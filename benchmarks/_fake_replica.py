"""The service on Ray Serve with fake engines: everything is real but the model."""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import Any

from benchmarks._fake_scoring import ByteEncoder, FakeScorer
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.preference.tokenization import TEMPLATE_FILE, Encoder
from codepmp_ray.serve.deployments import ScorerReplica
from codepmp_ray.serve.weights import Weights


class FakeReplica(ScorerReplica):
    """`model_path` is a folder of `write_fake_model`."""

    def __init__(self, model_path: str, config: dict[str, Any], num_gpus: float) -> None:
        facts = json.loads((Path(model_path) / "config.json").read_text())
        max_model_len = ServingConfig.model_validate(config).max_model_len
        encoder: Any = ByteEncoder()
        self._config = ServingConfig.model_validate(config)
        self._scorer = FakeScorer(max_model_len, facts["tokens_per_s"], facts["offset"])
        self._prepare(model_path, encoder)

    def _staged(self, weights: Weights) -> tuple[str, queue.SimpleQueue[Encoder], float, Any]:
        return weights.path, self._encoders, 1.0, self._scorer.stage_weights(weights.path)

    async def counts(self) -> dict[str, int]:
        """Calls started, finished and cancelled here, and tokens in flight."""
        return {**self._scorer.num, "tokens_in_flight": self._tokens_in_flight}


def write_fake_model(folder: Path, tokens_per_s: float | None = None, offset: float = 0.0) -> Path:
    """A version of a "model": its rewards are `expected_reward(text, offset)`."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"tokens_per_s": tokens_per_s, "offset": offset}
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / TEMPLATE_FILE).write_text("{}")
    return folder


def fake_recipe(**serving: Any) -> Recipe:
    """Any free port, and replicas that fit wherever there is a CPU."""
    fields = {"port": 0, "num_cpus": 0.1, "served_model_name": "fake", **serving}
    return Recipe.model_validate({"serving": fields})
