"""The scorer that `serving` asks for, in a replica of the service or in an actor of a batch job."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from codepmp_ray.cluster.vllm_process import leave_with_engine
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.scoring.protocol import Scorer


def make_scorer(
    model_path: str,
    config: ServingConfig,
    num_gpus: float,
    on_death: Callable[[Exception], NoReturn] = leave_with_engine,
) -> Scorer:
    """The engine of `config`; fetching and loading the model take their time here.

    `on_death` is called when the engine's process has died under a request.
    """
    folder = resolve_model(model_path)
    if config.engine == "vllm":
        from codepmp_ray.cluster.vllm_scorer import VLLMScorer

        return VLLMScorer(folder, config, num_gpus, on_death)
    from codepmp_ray.scoring.torch_scorer import TorchScorer

    device = "cuda" if num_gpus else "cpu"
    return TorchScorer.load(folder, config.max_model_len, config.dtype, device)
