"""Programs of others with the real service: TRL, OpenRLHF, rewardbench, curl, and our client."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import torch

from codepmp_ray.client import RewardClient
from codepmp_ray.client.rewards import trl_reward_function
from codepmp_ray.modeling.export import export_model
from codepmp_ray.modeling.loading import load_preference_model
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.storage import LocalStore
from tests.processes import PATIENCE_S
from tests.real_service import KEY, SCRAPE_TOKEN, serving
from tests.tiny_models import tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs/rl-trainers.md", ROOT / "docs/serving.md"]
ADDRESS = "http://127.0.0.1:9000"  # as the documents have it
TOLERANCE = 1e-5
PROMPTS = ["Add one to x.", "Name a colour, please."]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """What a finetuning stage exports."""
    tokenizer = tiny_tokenizer()
    template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
    folder = tmp_path_factory.mktemp("adapters") / "rm"
    reward_model = load_preference_model(str(tiny_model_dir), make_objective("rm"), seed=3)
    with torch.no_grad():
        reward_model.score.weight.mul_(50)  # spreads the scores
    export_model(reward_model, tokenizer, template, LocalStore(folder), torch.float32)
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with serving(model) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[RewardClient]:
    with RewardClient(url, KEY) as made:
        yield made


def test_trl_trains_on_the_rewards_of_the_service(
    client: RewardClient, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of the real GRPOTrainer."""
    # It generates with transformers here; importing vLLM takes longer than the whole test.
    utils = importlib.import_module("trl.import_utils")
    monkeypatch.setattr(utils, "is_vllm_available", lambda *args, **options: False)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    reward, calls = trl_reward_function(client), []

    def recorded(**columns: Any) -> list[float]:
        rewards = reward(**columns)
        calls.append((columns["prompts"], columns["completions"], rewards))
        return rewards

    rows = [PROMPTS[0], [{"role": "user", "content": PROMPTS[1]}]]
    for number, prompt in enumerate(rows):  # plain and conversational
        trainer = GRPOTrainer(
            model=str(tiny_model_dir),
            reward_funcs=recorded,
            args=GRPOConfig(
                output_dir=str(tmp_path / str(number)),
                max_steps=2,
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=12,
                learning_rate=1e-2,
                logging_steps=1,
                report_to="none",
                save_strategy="no",
                bf16=False,
                use_cpu=True,
                gradient_checkpointing=False,
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt}] * 4),
        )
        before = trainer.model.model.embed_tokens.weight.detach().clone()
        calls.clear()
        trainer.train()
        assert trainer.state.global_step == len(calls) == 2
        assert not torch.equal(before, trainer.model.model.embed_tokens.weight)
        logged = [row for row in trainer.state.log_history if "rewards/recorded/mean" in row]
        for row, (prompts, completions, rewards) in zip(logged, calls, strict=True):
            texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
            assert prompts == [prompt] * 4 and len(set(rewards)) > 1
            assert rewards == client.choose(prompt, texts).rewards
            assert row["rewards/recorded/mean"] == pytest.approx(sum(rewards) / 4, abs=1e-4)


def test_openrlhf_reads_its_rewards(model: Path, url: str, client: RewardClient) -> None:
    """OpenRLHF pins a transformers of its own, so these are its requests in our words.

    Its agents (0.11) post whole texts with prompts and labels through aiohttp, a rollout at a time,
    and read `scores`, `rewards` and `extra_logs`; `remote_rm_fn` (up to 0.9) posts the texts alone
    through requests and reads `rewards`. Neither can send a header, so the key is in the address.
    """
    encoder = Encoder.load(model)
    answers = ["x + 1", "x - 1"]
    expected = client.choose(PROMPTS[0], answers).rewards
    prompt = encoder.render_prompt(PROMPTS[0])
    texts = [f"{prompt}{answer}<|im_end|>" for answer in answers]
    remote_url = url.replace("://", f"://any:{KEY}@") + "/get_reward"

    async def agent(text: str) -> dict[str, Any]:
        payload = {"query": [text], "prompts": [prompt], "labels": ["7"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(remote_url, json=payload) as response,
        ):
            response.raise_for_status()
            return await response.json()

    for text, reward in zip(texts, expected, strict=True):
        info = asyncio.run(agent(text))
        assert info["scores"] == info["rewards"] == pytest.approx([reward], abs=TOLERANCE)
        assert info["extra_logs"] == {}
    response = requests.post(remote_url, json={"query": texts}, timeout=PATIENCE_S)
    assert torch.tensor(response.json()["rewards"]).tolist() == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_rewardbench_reads_the_same_rewards_from_the_export(
    model: Path, client: RewardClient
) -> None:
    """rewardbench pins a transformers of its own and computes on GPUs only: its steps in our words.

    A sequence classifier and its tokenizer from the folder, conversations through the tokenizer's
    chat template, tokenised with padding and truncation, and the logits as they are.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
    assert tokenizer.pad_token_id is not None and classifier.config.pad_token_id is not None
    answers = ["x + 1", "return x - 1  # and so on"]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPTS[0]}, {"role": "assistant", "content": answer}],
            tokenize=False,
        )
        for answer in answers
    ]
    batch = tokenizer(texts, truncation=True, max_length=256, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = classifier.eval()(**batch).logits
    assert logits.shape == (2, 1)
    expected = client.choose(PROMPTS[0], answers).rewards
    assert logits.flatten().tolist() == pytest.approx(expected, abs=TOLERANCE)


def curl_commands() -> list[str]:
    """Every curl command of the documents' console blocks."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```console\n(.*?)```", document.read_text("utf-8"), re.DOTALL):
            for command in re.split(r"^\$ ", block, flags=re.MULTILINE):
                if command.startswith("curl"):
                    found.append(command.strip())
    return found


def test_the_documented_curl_commands_work(url: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("this machine has no curl")
    environment = {
        "PATH": os.environ["PATH"],
        "CODEPMP_API_KEY": KEY,
        "CODEPMP_SCRAPE_TOKEN": SCRAPE_TOKEN,
    }
    shown: dict[str, str] = {}
    for command in curl_commands():
        assert ADDRESS in command
        line = command.replace(ADDRESS, url).replace("curl -s", "curl -s --fail-with-body", 1)
        done = subprocess.run(
            ["bash", "-c", line],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        shown[command.split(ADDRESS)[1].split()[0]] = done.stdout
    routes = {"/v1/bon", "/v1/rerank", "/score", "/classify", "/get_reward", "/metrics", "/ready"}
    assert set(shown) == routes
    assert "codepmp_candidates_total" in shown.pop("/metrics")
    answers = {route: json.loads(text) for route, text in shown.items()}
    assert answers["/ready"] == {"status": "ready"}
    best = answers["/v1/bon"]["data"]
    first = {item["index"]: item["relevance_score"] for item in answers["/v1/rerank"]["results"]}
    same = [[item["score"] for item in answers["/score"]["data"]], [first[0], first[1]]]
    # One prompt and the same candidates everywhere; two routes get whole texts.
    assert same == [[item["score"] for item in best]] * 2
    assert answers["/get_reward"]["rewards"] == [answers["/classify"]["data"][0]["probs"][0]]


def test_the_documented_client_works(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CODEPMP_API_KEY", KEY)
    text = (ROOT / "docs/serving.md").read_text("utf-8").split("## Client", 1)[1]
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert ADDRESS in example
    exec(compile(example.replace(ADDRESS, url), "docs/serving.md", "exec"), {})
    assert re.search(r"^[01] \[-?\d", capsys.readouterr().out)
