"""Several models in one service, each by its name, and all of them as an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ConfigError, EngineError
from codepmp_ray.scoring.best_of_n import BestOfN, ScoringRequest
from codepmp_ray.scoring.protocol import Scores
from codepmp_ray.serve.answer_schemas import Calibration
from codepmp_ray.serve.app import create_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.replicas import each_model
from codepmp_ray.serve.settings import ModelFacts
from tests.unit.serve.http_fakes import (
    HEADERS,
    NAN_LENGTH,
    SETTINGS,
    FakeBackend,
    FakeScorer,
    bon,
    error_of,
)
from tests.unit.serve.test_dialects import ASKED

OTHER = ModelFacts(
    model_name="other",
    weights_digest="b" * 64,
    max_model_len=256,
    dtype="bfloat16",
    label="reward",
    calibration=Calibration(mean=-10.0, std=4.0),
)
SEVERAL = SETTINGS.model_copy(
    update={
        "weights_digest": "a" * 64,
        "max_model_len": 512,
        "dtype": "float32",
        "other_models": (OTHER,),
        "lower_bound_stds": 2.0,
        "execute": True,
        "admin_key_sha256": (digest_of("admin"),),
        "weight_roots": ("/weights",),
    }
)
TEXTS = ["aaaa", "a", "aaaaaaaa", "a"]


class OtherScorer(FakeScorer):
    """Shorter is better."""

    async def score_ids(self, *args: Any, **more: Any) -> Scores:
        found = await super().score_ids(*args, **more)
        return Scores([None if reward is None else -2 * reward for reward in found.rewards], 3)


class OtherBackend(FakeBackend):
    def __init__(self) -> None:
        super().__init__()
        self.scorer: FakeScorer = OtherScorer()

    async def best_of_n(self, request: ScoringRequest) -> BestOfN:
        if request.prompt == "damaged":
            raise EngineError("secret detail of the engine")
        return await super().best_of_n(request)


@pytest.fixture
def backends() -> dict[str, FakeBackend]:
    return {"tiny": FakeBackend(), "other": OtherBackend()}


@pytest.fixture
def client(backends: dict[str, FakeBackend]) -> Iterator[TestClient]:
    app = create_app(SEVERAL, backends)
    with TestClient(app, raise_server_exceptions=False, headers=HEADERS) as made:
        yield made


def scores_of(client: TestClient, model: str | None, **more: Any) -> list[float]:
    answer = bon(client, candidates=TEXTS, **({} if model is None else {"model": model}), **more)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == (model or "tiny")
    return [item["score"] for item in answer.json()["data"]]


def test_each_model_answers_by_its_name_and_the_first_without_one(client: TestClient) -> None:
    first, second = scores_of(client, "tiny"), scores_of(client, "other")
    assert scores_of(client, None) == first
    assert second == [-2 * score for score in first] and len(set(first)) > 1
    normal = scores_of(client, "other", normalize=True)
    assert normal == pytest.approx([(score + 10) / 4 for score in second])


def test_an_ensemble_is_the_mean_of_its_models_on_one_scale(client: TestClient) -> None:
    raw = {name: scores_of(client, name) for name in ("tiny", "other")}
    in_stds = [
        [(score - 2.0) / 0.5 for score in raw["tiny"]],
        [(score + 10.0) / 4.0 for score in raw["other"]],
    ]
    means = [(a + b) / 2 for a, b in zip(*in_stds, strict=True)]
    apart = [abs(a - b) / 2 for a, b in zip(*in_stds, strict=True)]  # of two: their deviation
    lower = [mean - 2.0 * std for mean, std in zip(means, apart, strict=True)]
    for name, expected in (("ensemble", means), ("ensemble-lower", lower)):
        answer = bon(client, candidates=TEXTS, model=name).json()
        data = answer["data"]
        assert [item["score"] for item in data] == pytest.approx(expected)
        assert [item["disagreement"] for item in data] == pytest.approx(apart)
        for model, scores in raw.items():
            assert [item["by_model"][model] for item in data] == scores
        assert answer["best_index"] == expected.index(max(expected))
        order = sorted(range(4), key=lambda index: -expected[index])
        assert [item["rank"] for item in data] == [order.index(n) + 1 for n in range(4)]
        assert data[3]["duplicate_of"] == 1
        assert scores_of(client, name, normalize=True) == pytest.approx(expected)
    assert means.index(max(means)) != lower.index(max(lower))  # the texts tell the two apart
    alone = bon(client, candidates=TEXTS).json()
    assert "disagreement" not in alone["data"][0] and "by_model" not in alone["data"][0]
    of_two = bon(client, candidates=TEXTS, model="ensemble").json()["usage"]
    assert of_two["candidate_tokens"] == 2 * alone["usage"]["candidate_tokens"]


@pytest.mark.parametrize("path", ASKED)
def test_every_route_takes_each_model_and_ensemble(client: TestClient, path: str) -> None:
    body, read = ASKED[path]
    body = {**body, "raw_scores": True}
    first, second, mean, lower = (
        read(client.post(path, json={**body, "model": name}).json())
        for name in ("tiny", "other", "ensemble", "ensemble-lower")
    )
    assert read(client.post(path, json=body).json()) == first and second == -2 * first
    in_stds = (first - 2.0) / 0.5, (second + 10.0) / 4.0
    assert mean == pytest.approx(sum(in_stds) / 2)
    assert lower == pytest.approx(mean - abs(in_stds[0] - in_stds[1]))
    refused = error_of(client.post(path, json={**body, "model": "third"}), 404)
    assert "'tiny', 'other', 'ensemble', 'ensemble-lower' are" in refused["message"]


def test_many_prompts_of_an_ensemble_fail_by_themselves(client: TestClient) -> None:
    requests = [{"prompt": p, "candidates": ["a", "bb"]} for p in ("p", "q" * 2000)]
    answer = client.post("/v1/bon", json={"requests": requests, "model": "ensemble"}).json()
    good, bad = answer["results"]
    assert good["best_index"] is not None and "error" not in good
    assert "'tiny'" in bad["error"]["message"] and "512" in bad["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/bon", {"prompt": "p", "candidates": ["a"], "stages": ["parse", "reward"]}, "stages"),
        ("/v1/bon", {"prompt": "p", "candidates": ["a"], "probabilities": True}, "probabilities"),
        ("/classify", {"input": [1, 2, 3]}, "input"),
        ("/classify", {"input_ids": [[1, 2, 3]]}, "input"),
        ("/tokenize", {"prompt": "p"}, "model"),
    ],
)
def test_what_is_of_one_model_is_refused_of_an_ensemble(
    client: TestClient, path: str, body: dict[str, Any], param: str
) -> None:
    assert client.post(path, json=body).status_code == 200
    assert client.post(path, json={**body, "model": "other"}).status_code == 200
    refused = client.post(path, json={**body, "model": "ensemble"})
    assert error_of(refused, 422)["param"] == param


def test_a_model_that_fails_is_named_and_costs_the_others_nothing(
    client: TestClient, backends: dict[str, FakeBackend]
) -> None:
    for prompt, status in (("away", 503), ("damaged", 500)):
        message = error_of(bon(client, prompt=prompt, model="ensemble"), status)["message"]
        assert ("'tiny'" if prompt == "away" else "'other'") in message
        assert "secret" not in message
    assert bon(client, prompt="damaged", model="tiny").status_code == 200
    long = "a" * 400  # too long for one of them only
    backends["other"].scorer.max_model_len = 256
    refused = client.post("/classify", json={"input": long, "model": "ensemble"})
    error = error_of(refused, 422)
    assert "'other'" in error["message"] and error["param"] == "input"
    # A text without a reward by one model has none by all.
    nan = "a" * (NAN_LENGTH - 1)
    item = bon(client, candidates=[nan, "a"], model="ensemble").json()["data"][0]
    assert item["score"] is None and item["missing"] == "not_finite" and item["rank"] is None
    assert "disagreement" not in item


def test_models_say_what_they_are_and_whether_they_are_there(
    client: TestClient, backends: dict[str, FakeBackend]
) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert list(cards) == ["tiny", "other", "ensemble", "ensemble-lower"]
    assert (cards["other"]["max_model_len"], cards["other"]["dtype"]) == (256, "bfloat16")
    assert cards["ensemble"]["members"] == ["tiny", "other"] and "members" not in cards["tiny"]
    assert cards["ensemble"]["max_model_len"] == 256
    both = hashlib.sha256(f"{'a' * 64}\n{'b' * 64}".encode()).hexdigest()
    assert cards["ensemble"]["weights_digest"] == both
    assert bon(client, model="ensemble").headers["x-codepmp-weights"] == both
    assert all(card["ready"] for card in cards.values())
    assert [cards[n]["host_memory_bytes"] for n in ("tiny", "ensemble")] == [1_000, 2_000]
    assert client.get("/ready").status_code == 200
    backends["other"].is_ready = False
    away = {card["id"]: not card["ready"] for card in client.get("/v1/models").json()["data"]}
    assert away == {"tiny": False, "other": True, "ensemble": True, "ensemble-lower": True}
    assert client.get("/v1/models/other").json()["ready"] is False
    assert "'other'" in error_of(client.get("/ready"), 503)["message"]
    stranger = client.get("/ready", headers={"authorization": ""})
    assert "other" not in error_of(stranger, 503)["message"]


def test_weights_are_those_of_the_model_that_is_named(
    client: TestClient, backends: dict[str, FakeBackend]
) -> None:
    body = {"path": "/weights/new", "weights_digest": "c" * 64}
    admin = {"x-api-key": "admin", "authorization": ""}
    post = "/admin/weights"
    assert error_of(client.post(post, json={**body, "model": "ensemble"}, headers=admin), 422)
    assert error_of(client.post(post, json={**body, "model": "x"}, headers=admin), 404)
    assert client.post(post, json={**body, "model": "other"}, headers=admin).status_code == 200
    assert backends["tiny"].digest is None and backends["other"].digest == "c" * 64
    cards = {card["id"]: card["weights_digest"] for card in client.get("/v1/models").json()["data"]}
    assert cards["tiny"] == "a" * 64 and cards["other"] == "c" * 64
    assert cards["ensemble"] == hashlib.sha256(f"{'a' * 64}\n{'c' * 64}".encode()).hexdigest()


def test_an_ensemble_wants_all_models_on_one_scale() -> None:
    settings = SEVERAL.model_copy(
        update={"other_models": (OTHER.model_copy(update={"calibration": None}),)}
    )
    app = create_app(settings, {"tiny": FakeBackend(), "other": OtherBackend()})
    client = TestClient(app, headers=HEADERS)
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["tiny", "other"]
    message = error_of(bon(client, model="ensemble"), 404)["message"]
    assert "each with score_mean and score_std" in message


def serving(**fields: Any) -> ServingConfig:
    return ServingConfig.model_validate({"served_model_name": "a", "engine": "torch", **fields})


def test_another_model_has_the_first_ones_settings_but_for_what_is_of_one_model(
    tmp_path: Path,
) -> None:
    config = serving(
        dtype="bfloat16", max_model_len=64, score_mean=1.0, score_std=2.0, audit_file="audit.json",
        other_models={
            "b": {"model_path": str(tmp_path), "max_model_len": 32},
            "c": {"model_path": "s3://x/y"},
        },
    )  # fmt: skip
    config = ServingConfig.model_validate(config.model_dump(mode="json"))  # as jobs hand it on
    found = each_model(config, "/models/a")
    assert {name: place for name, (_, place) in found.items()} == {
        "a": "/models/a", "b": str(tmp_path), "c": "s3://x/y",
    }  # fmt: skip
    second, third = found["b"][0], found["c"][0]
    assert (second.max_model_len, third.max_model_len, second.dtype) == (32, 64, "bfloat16")
    assert second.engine == "torch"
    for of_one in ("revision", "audit_file", "score_mean", "score_std"):
        assert getattr(second, of_one) is None


@pytest.mark.parametrize(("first", "other"), [("a", "a"), ("a", "ensemble"), ("ensemble", "b")])
def test_two_models_of_one_name_are_refused(first: str, other: str) -> None:
    config = serving(served_model_name=first, other_models={other: {"model_path": "/m"}})
    with pytest.raises(ConfigError, match="two models would be called"):
        each_model(config, "/models/a")


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 65, "ä"])
def test_names_that_fit_no_address_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="other_models has the name"):
        serving(other_models={name: {"model_path": "/m"}})
