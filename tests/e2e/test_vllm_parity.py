"""The served numbers are those of training and of plain transformers: real vLLM, real HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks._cached_tokens import cached_prompt_tokens
from codepmp_ray.cluster.connect import connect
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.evaluation.parity import (
    FP32_TOLERANCE,
    compare,
    make_question,
    trainer_rewards,
    transformers_rewards,
)
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.launch import ServiceHandle, running_service
from codepmp_ray.serve.parity import ask_service
from codepmp_ray.weights_digest import weights_digest
from tests.processes import PATIENCE_S
from tests.tiny_models import save_tiny_reward_model

pytestmark = pytest.mark.e2e

BLOCK_SIZE = 32  # the smallest that vLLM's CPU attention takes
MAX_LEN = 256
CANDIDATES = [
    "def add(a, b):\n    return a + b",
    "def add(a, b):\n    return a - b",
    "",
    "x" * 400,  # cut to fit
    "words " * 20,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pad equal to EOS: who searches for the last token that is no pad misses the final EOS."""
    folder = tmp_path_factory.mktemp("rm tiny") / "model"
    return save_tiny_reward_model(folder, pad_is_eos=True)


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceHandle]:
    serving = {
        "engine": "vllm",
        "dtype": "float32",
        "max_model_len": MAX_LEN,
        "block_size": BLOCK_SIZE,
        "num_cpus": 0.5,
        "port": 0,
        "metrics_token_sha256": [digest_of("scrape")],
        "admin_key_sha256": [digest_of("admin")],
        "weight_roots": [str(tmp_path_factory.getbasetemp())],
    }
    with (
        connect(),
        running_service(Recipe.model_validate({"serving": serving}), model) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def client(service: ServiceHandle) -> Iterator[httpx.Client]:
    headers = {"x-api-key": service.api_key}
    with httpx.Client(base_url=service.url, headers=headers, timeout=PATIENCE_S) as opened:
        yield opened


def cached_by_metrics(client: httpx.Client) -> float:
    text = client.get("/metrics", headers={"x-api-key": "scrape"}).raise_for_status().text
    lines = [line.split() for line in text.splitlines() if "cached_prompt" in line]
    return sum(float(value) for _, value in lines)


def test_every_way_to_a_score_gives_the_same_one(
    model: Path, service: ServiceHandle, tmp_path: Path
) -> None:
    encoder = Encoder.load(model)
    prompts = ["Write a function that returns the sum of two numbers, and nothing else.", "Add."]
    questions = [make_question(encoder, MAX_LEN, prompt, CANDIDATES) for prompt in prompts]
    # transformers needs a pad of its own to find the EOS; the weights are the same.
    careful = Path(shutil.copytree(model, tmp_path / "careful"))
    facts = json.loads((careful / "config.json").read_text())
    assert facts["pad_token_id"] == facts["eos_token_id"]
    (careful / "config.json").write_text(json.dumps(facts | {"pad_token_id": 0}))

    fp32 = (torch.float32, torch.device("cpu"), questions)
    ways = {
        "transformers": transformers_rewards(careful, *fp32),
        "trainer": trainer_rewards(model, *fp32),
        **ask_service(service, "vllm", questions),
    }
    found = compare(ways, "float32")
    assert [(item.left, item.right) for item in found.differences][-1] == ("vllm", "HTTP")
    assert len(found.differences) == 6
    assert found.spread > 1000 * FP32_TOLERANCE
    found.require()


def test_the_prompt_is_computed_once_and_counted(model: Path, client: httpx.Client) -> None:
    encoder = Encoder.load(model)
    prompt = "This prompt was not seen before, and it is long enough to fill more than one block."
    before = cached_by_metrics(client)
    body = {"prompt": prompt, "candidates": [*CANDIDATES, CANDIDATES[0]]}
    first = client.post("/v1/bon", json=body).raise_for_status().json()
    again = client.post("/v1/bon", json=body).raise_for_status().json()
    assert [item["truncated"] for item in first["data"]] == [False] * 3 + [True] + [False] * 2
    assert first["data"][5]["duplicate_of"] == 0
    assert first["data"] == again["data"]

    ids = make_question(encoder, MAX_LEN, prompt, CANDIDATES)
    once, twice = (
        cached_prompt_tokens(ids.prompt_ids, times * ids.response_ids, BLOCK_SIZE)
        for times in (1, 2)
    )
    # Candidates 0 and 1 go on alike, so that the second finds the rest of the prompt, too.
    shared, rest = divmod(len(ids.prompt_ids), BLOCK_SIZE)
    assert once == 4 * shared * BLOCK_SIZE + rest and shared and rest
    assert first["usage"]["cached_prompt_tokens"] == once
    assert again["usage"]["cached_prompt_tokens"] == twice - once
    assert cached_by_metrics(client) - before == twice


def test_whole_texts_share_their_beginning(model: Path, client: httpx.Client) -> None:
    texts = ["Another prompt that nobody has sent so far. " + text for text in CANDIDATES[:3]]
    answer = client.post("/classify", json={"input": texts}).raise_for_status().json()
    rows = [Encoder.load(model).whole_text(text).ids for text in texts]
    expected = cached_prompt_tokens([], rows, BLOCK_SIZE)
    assert expected >= 2 * BLOCK_SIZE
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": expected}


def test_other_weights_give_the_scores_of_a_fresh_start(
    model: Path, service: ServiceHandle, client: httpx.Client, tmp_path: Path
) -> None:
    """Reloaded in place, and nothing of the old ones is left in the cache."""
    folder = Path(shutil.copytree(model, tmp_path / "new"))
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name, values in tensors.items():
        tensors[name] = values + 0.1 * torch.randn(values.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = Encoder.load(model)
    prompt = "This prompt fills blocks before the weights change, and is asked again after that."
    question = make_question(encoder, MAX_LEN, prompt, CANDIDATES)
    body = {"prompt": prompt, "candidates": CANDIDATES}
    before = client.post("/v1/bon", json=body).raise_for_status().json()["data"]
    wanted = {"path": str(folder), "weights_digest": weights_digest(str(folder))}
    headers = {"x-api-key": "admin"}
    client.post("/admin/weights", json=wanted, headers=headers).raise_for_status()
    answer = client.post("/v1/bon", json=body).raise_for_status()
    assert answer.headers["x-codepmp-weights"] == wanted["weights_digest"]
    careful = Path(shutil.copytree(folder, tmp_path / "careful"))
    facts = json.loads((careful / "config.json").read_text())
    (careful / "config.json").write_text(json.dumps(facts | {"pad_token_id": 0}))
    (expected,) = transformers_rewards(careful, torch.float32, torch.device("cpu"), [question])
    found = [item["score"] for item in answer.json()["data"]]
    assert found == pytest.approx(expected, abs=FP32_TOLERANCE)
    assert max(abs(a - item["score"]) for a, item in zip(found, before, strict=True)) > 0.01
