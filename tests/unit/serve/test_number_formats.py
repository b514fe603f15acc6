"""Weights in fewer bits: who serves them, who refuses them, and that it is said."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from codepmp_ray.cluster.vllm_scorer import engine_arguments
from codepmp_ray.config.evaluation import Dtype, Quantization, ServingConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import stage_fingerprints
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.scoring.torch_scorer import TorchScorer
from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.application import build_application
from codepmp_ray.serve.auth import digest_of
from tests.tiny_models import save_tiny_reward_model
from tests.unit.serve.http_fakes import HEADERS, SETTINGS, FakeBackend

WAYS = get_args(Quantization)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("rm") / "model")


def serving(**fields: Any) -> ServingConfig:
    return ServingConfig.model_validate({"max_model_len": 64, **fields})


@pytest.mark.parametrize("way", WAYS)
def test_the_torch_scorer_refuses_whatever_quantises(model: Path, way: str) -> None:
    with pytest.raises(ConfigError, match=f"serving.quantization={way} is vLLM's"):
        require_model(serving(engine="torch", quantization=way), str(model))
    config = serving(quantization=way, dtype="float16")
    require_model(config, str(model))
    arguments = engine_arguments(config, 1.0, False)
    assert (arguments["quantization"], arguments["dtype"]) == (way, "float16")


def test_vllm_knows_all_ways_to_quantise_that_can_be_set() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    folder = Path(found.submodule_search_locations[0]) / "model_executor/layers/quantization"
    text = (folder / "__init__.py").read_text()
    known = text[text.index("QuantizationMethods = Literal[") :].partition("\n]")[0]
    assert set(WAYS) <= set(re.findall(r'"([a-z0-9_-]+)"', known))


@pytest.mark.parametrize("num_gpus", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_replicas_that_share_a_gpu_share_its_memory(num_gpus: float) -> None:
    share = engine_arguments(serving(), num_gpus, False)["gpu_memory_utilization"]
    assert share == pytest.approx(0.9 * (num_gpus if 0 < num_gpus < 1 else 1))


@pytest.mark.parametrize("dtype", get_args(Dtype))
def test_the_torch_scorer_has_every_number_format(model: Path, dtype: str) -> None:
    ids = [[5, 6, 7], [8, 9, 10, 11]]
    exact, found = (
        asyncio.run(TorchScorer.load(model, 64, name).score_ids([3, 4], ids)).rewards
        for name in ("float32", dtype)
    )
    # Of a reward near 1, by the bits of the format's fraction.
    tolerance = {"float32": 1e-6, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    assert found == pytest.approx(exact, abs=tolerance)


def test_models_say_their_number_format() -> None:
    settings = SETTINGS.model_copy(update={"dtype": "float16", "quantization": "fp8"})
    client = TestClient(create_app(settings, FakeBackend()), headers=HEADERS)
    (card,) = client.get("/v1/models").json()["data"]
    assert (card["dtype"], card["quantization"]) == ("float16", "fp8")
    plain = TestClient(create_app(SETTINGS, FakeBackend()), headers=HEADERS)
    assert "quantization" not in plain.get("/v1/models/tiny").json()


def test_quantised_weights_cannot_be_changed_in_place(model: Path) -> None:
    config = serving(
        quantization="fp8",
        admin_key_sha256=[digest_of("admin")],
        weight_roots=["/weights"],
    )
    with pytest.raises(ConfigError, match=r"is quantised \(fp8\)"):
        build_application(config, model, [digest_of("key")])


def test_another_number_format_is_another_result(tmp_path: Path) -> None:
    from codepmp_ray.config.recipe import Recipe

    def prints(**fields: Any) -> dict[str, str]:
        return stage_fingerprints(Recipe.model_validate({"serving": fields}))

    plain, quantised = prints(), prints(quantization="fp8")
    for stage in ("scoring", "evaluation"):
        assert plain[stage] != quantised[stage]
        assert plain[stage] == prints(quantization=None, other_models={})[stage]
