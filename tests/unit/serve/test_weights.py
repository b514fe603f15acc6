"""Other weights in a replica of the real torch scorer: scores of a fresh start, or a refusal."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import CodePMPError, InputError
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest
from codepmp_ray.serve.admission import Admission
from codepmp_ray.serve.answer_schemas import fields_of
from codepmp_ray.serve.deployments import ScorerReplica
from codepmp_ray.serve.observation import Metrics
from codepmp_ray.serve.schemas import BonItem, BonOptions
from codepmp_ray.serve.scoring import ModelPath
from codepmp_ray.serve.settings import ModelFacts
from codepmp_ray.serve.weights import Weights
from codepmp_ray.weights_digest import CALIBRATION_FILE, weights_digest
from tests.real_service import KEY, serving
from tests.tiny_models import save_tiny_reward_model

CONFIG = ServingConfig(engine="torch", max_model_len=256).model_dump(mode="json")
REQUEST = ScoringRequest("Add one to x.", ["x + 1", "x - 1", "pass"])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("first") / "model")


@pytest.fixture(scope="module")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shapes with other values."""
    folder = tmp_path_factory.mktemp("second") / "model"
    shutil.copytree(first, folder)
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(folder / "model.safetensors")
    for name, values in tensors.items():
        tensors[name] = values + 0.1 * torch.randn(values.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def replica(folder: Path) -> ScorerReplica:
    return ScorerReplica(str(folder), CONFIG, 0.0)


def told(folder: Path, first: Path, **changes: Any) -> Weights:
    """What the service that was started with `first` says when it changes to `folder`."""
    digest, base = weights_digest(str(folder)), weights_digest(str(first))
    fields = {"version": 1, "path": str(folder), "digest": digest, "base": base}
    return Weights(**fields | changes)


def scores_of(found: list[Any]) -> list[float | None]:
    (result,) = found
    assert isinstance(result, BestOfN)
    return [item.score for item in result.candidates]


def test_scores_after_a_change_are_those_of_a_fresh_start(first: Path, second: Path) -> None:
    async def test() -> None:
        changing, fresh = replica(first), replica(second)
        before, after = scores_of(await changing.score([REQUEST])), await fresh.score([REQUEST])
        assert before != scores_of(after)
        new = told(second, first)
        under_way = [asyncio.create_task(changing.score([REQUEST])) for _ in range(8)]
        assert await changing.load_weights(new) is None
        for task in under_way:  # each is of one version, and says of which
            (result,) = await task
            expected = scores_of(after) if result.weights_digest else before
            assert scores_of([result]) == expected
        (result,) = await changing.score([REQUEST])
        assert scores_of([result]) == scores_of(after) and result.weights_digest == new.digest
        assert await changing.newest_weights() == new
        # A replica that was started again is told with the first call.
        assert scores_of(await replica(first).score([REQUEST], new)) == scores_of(after)
        # One of another version of the service is not.
        other = told(first, second, version=9, base="of another model")
        assert scores_of(await changing.score([REQUEST], other)) == scores_of(after)

    asyncio.run(test())


def test_chances_are_by_the_temperature_beside_the_weights(
    first: Path, second: Path, tmp_path: Path
) -> None:
    """It changes with them, and no score does."""
    calibrated = Path(shutil.copytree(second, tmp_path / "model"))
    (calibrated / CALIBRATION_FILE).write_text('{"temperature": 4.0}')

    async def test() -> None:
        plain, changing = replica(second), replica(first)
        (before,), (expected,) = await changing.score([REQUEST]), await plain.score([REQUEST])
        assert await changing.load_weights(told(calibrated, first)) is None
        (after,) = await changing.score([REQUEST])
        (started,) = await replica(calibrated).score([REQUEST])
        found = (before, expected, after, started)
        assert [r.temperature for r in found if isinstance(r, BestOfN)] == [1.0, 1.0, 4.0, 4.0]
        assert scores_of([after]) == scores_of([started]) == scores_of([expected])
        options = BonOptions(probabilities=True)
        item = BonItem(prompt=REQUEST.prompt, candidates=[*REQUEST.candidates])
        for result, temperature in ((expected, 1.0), (after, 4.0)):
            shown = [row.probability for row in fields_of(result, item, options, None)["data"]]
            scores = np.array(scores_of([result])) / temperature
            assert shown == pytest.approx(np.exp(scores) / np.exp(scores).sum())

    asyncio.run(test())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("digest", "have the digest"),
        ("config", "configurations differ in rope_theta"),
        ("shape", "Names or shapes"),
        ("gone", "does not exist"),
        ("no export", "not an exported reward model"),
        ("head", "Names or shapes"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    first: Path, second: Path, tmp_path: Path, damage: str, words: str
) -> None:
    folder = Path(shutil.copytree(second, tmp_path / "model"))
    changes: dict[str, Any] = {}
    if damage == "digest":
        changes["digest"] = "0" * 64
    if damage == "config":
        facts = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(facts | {"rope_theta": 5.0}))
    if damage in ("shape", "head"):
        tensors = load_file(folder / "model.safetensors")
        tensors["score.weight"] = torch.zeros(1, 3)
        if damage == "head":
            del tensors["score.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if damage == "no export":
        (folder / "codepmp_template.json").unlink()
    weights = told(folder, first, **changes)
    if damage == "gone":
        shutil.rmtree(folder)

    async def test() -> None:
        changing = replica(first)
        before = scores_of(await changing.score([REQUEST]))
        error = await changing.load_weights(weights)
        assert isinstance(error, CodePMPError) and words in error.problem
        assert scores_of(await changing.score([REQUEST])) == before
        assert (await changing.newest_weights()).version == 0

    asyncio.run(test())


def test_over_http_every_answer_names_its_weights(first: Path, second: Path) -> None:
    from codepmp_ray.serve.auth import digest_of

    roots = (str(second.parent),)
    settings = {"admin_key_sha256": (digest_of("admin"),), "weight_roots": roots}
    body = {"prompt": "p", "candidates": ["a", "bb"]}
    digests = [weights_digest(str(folder)) for folder in (first, second)]
    with (
        serving(first, **settings) as url,
        httpx.Client(base_url=url, headers={"x-api-key": KEY}, timeout=60) as client,
    ):
        assert client.post("/v1/bon", json=body).json()["weights_digest"] == digests[0]
        wanted = {"path": str(second), "weights_digest": digests[1]}
        admin = {"x-api-key": "admin"}
        answer = client.post("/admin/weights", json=wanted, headers=admin)
        assert answer.status_code == 200, answer.text
        answer = client.post("/classify", json={"input": "a"})
        assert answer.headers["x-codepmp-weights"] == digests[1]
        wrong = {"path": str(second), "weights_digest": digests[0]}
        answer = client.post("/admin/weights", json=wrong, headers=admin)
        assert answer.status_code == 422 and "have the digest" in answer.text


def test_ids_that_the_model_has_no_embedding_for_are_the_callers_error(first: Path) -> None:
    async def test() -> None:
        (found,) = await replica(first).score([ScoringRequest(None, [(1, 10**6)])])
        assert isinstance(found, InputError) and "token id 1000000" in found.problem

    asyncio.run(test())


class SlowBackend:
    """Loads one at a time, the first more slowly than the others."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.loaded: list[Weights] = []

    async def load_weights(self, weights: Weights) -> None:
        self.begun.append(weights.path)
        assert len(self.begun) == len(self.loaded) + 1
        await asyncio.sleep(0.01 if self.loaded else 0.2)
        self.loaded.append(weights)


def test_changes_at_once_are_made_in_their_order_also_when_their_callers_leave() -> None:
    """Whoever came last has what answers, and every replica has the same."""

    async def test() -> None:
        made: Any = SlowBackend()
        scoring = ModelPath(ModelFacts(model_name="m"), Admission(1, 1, 1), made, Metrics())
        calls = [asyncio.create_task(scoring.load_weights(name, name)) for name in "abc"]
        await asyncio.sleep(0.05)
        assert made.begun == ["a"]
        calls[0].cancel()  # its replicas are loading
        calls[1].cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(item) for item in found[:2]] == [asyncio.CancelledError] * 2
        assert [weights.path for weights in made.loaded] == ["a", "b", "c"]
        versions = [weights.version for weights in made.loaded]
        assert versions == sorted(set(versions)) and scoring.weights_digest == "c"

    asyncio.run(test())
