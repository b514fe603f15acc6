"""The served numbers are those of plain transformers: real vLLM behind the real HTTP interface."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from codepmp_ray.cluster.connect import connect
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.preference.tokenization import Encoder
from serve.launch import running_service
from tests.tiny_models import plain_transformers_score, save_tiny_reward_model

pytestmark = pytest.mark.e2e

# Both compute in fp32, in another order (paged attention, fused projections): sums of this size of
# model differ in the last digits only. The spread of the scores below is over 1000 times larger.
TOLERANCE = 1e-4
BLOCK_SIZE = 32  # the smallest that vLLM's CPU attention takes
PROMPT = "Write a function that returns the sum of two numbers, and nothing else."
CANDIDATES = [
    "def add(a, b):\n    return a + b",
    "def add(a, b):\n    return a - b",
    "",
    "x" * 400,  # cut to fit
    "def add(a, b):\n    return a + b",
    "words " * 20,
]


def test_vllm_service_and_transformers_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pad equal to EOS: who searches for the last token that is no pad misses the EOS at the end.
    model = save_tiny_reward_model(tmp_path / "rm tiny" / "model", pad_is_eos=True)
    monkeypatch.setenv("CODEPMP_API_KEY", "a-key-for-tests")
    recipe = Recipe.model_validate(
        {
            "serving": {
                "engine": "vllm",
                "dtype": "float32",
                "max_model_len": 256,
                "block_size": BLOCK_SIZE,
                "num_cpus": 0.5,
                "port": 0,
            }
        }
    )
    body = {"prompt": PROMPT, "candidates": CANDIDATES}
    with (
        connect(),
        running_service(recipe, model) as service,
        httpx.Client(
            base_url=service.url, headers={"x-api-key": service.api_key}, timeout=60
        ) as client,
    ):
        first = client.post("/v1/bon", json=body).raise_for_status().json()
        again = client.post("/v1/bon", json=body).raise_for_status().json()

    encoder = Encoder.load(model)
    prompt_ids = encoder.prompt_ids(PROMPT)
    room = 256 - len(prompt_ids)
    rows = [prompt_ids + encoder.response(text, room).ids for text in CANDIDATES]
    expected = [plain_transformers_score(model, row) for row in rows]
    assert max(expected) - min(expected) > 1000 * TOLERANCE
    for answer in (first, again):
        assert [item["score"] for item in answer["data"]] == pytest.approx(expected, abs=TOLERANCE)
        assert answer["best_index"] == max(range(len(expected)), key=lambda i: expected[i])
    assert [item["truncated"] for item in first["data"]] == [False] * 3 + [True] + [False] * 2
    assert first["data"][4]["duplicate_of"] == 0
    # Of five distinct rows the first computes the prompt; four take its whole blocks from the
    # cache. Candidates 0 and 1 go on alike, so that at most the rest of the prompt is added.
    shared = len(prompt_ids) // BLOCK_SIZE * BLOCK_SIZE
    assert 4 * shared <= first["usage"]["cached_prompt_tokens"] < 4 * shared + BLOCK_SIZE
    assert again["usage"]["cached_prompt_tokens"] >= 5 * shared
