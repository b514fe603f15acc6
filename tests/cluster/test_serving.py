"""The service on a real Ray Serve, with the plain torch scorer and a tiny model."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from safetensors.torch import load_file, save_file

from codepmp_ray.client import RewardClient
from codepmp_ray.command.evaluation import parity
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError, ModelError, ResourceError
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.scoring.best_of_n import best_of_n
from codepmp_ray.scoring.torch_scorer import TorchScorer
from codepmp_ray.serve.application import build_app
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.launch import running_service
from codepmp_ray.serve.listening import open_port
from codepmp_ray.weights_digest import weights_digest
from tests.processes import PATIENCE_S, wait_until
from tests.sandbox_machine import MECHANISMS
from tests.tiny_models import save_tiny_reward_model

PROMPT = "Add one to x."
CANDIDATES = ["return x + 1", "return x - 1", "return x + 1", "pass", "y" * 600]
STAGED = {
    "prompt": PROMPT,
    "candidates": ["pass", *(f"```python\ndef f(x): return x {s} 1\n```" for s in "-+")],
    "stages": ["extract", "parse", "run", "reward"],
    "tests": {"entry_point": "f", "test": "def check(f):\n    assert f(2) == 3\n"},
}
# JSON carries the float32 rewards exactly; batches of other shapes do not.
TOLERANCE = 1e-5


def recipe_with(**serving: Any) -> Recipe:
    fields = {"engine": "torch", "max_model_len": 256, "port": 0, "num_cpus": 0.5, **serving}
    return Recipe.model_validate({"serving": fields})


@pytest.fixture(scope="module")
def cluster(own_ray: None) -> None:
    """Of this file alone."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("with a space") / "rm-tiny" / "model")


def refuses_connections(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


class Other:
    def __call__(self) -> str:
        return "other"


def start_other_app(name: str) -> None:
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(ray_actor_options={"num_cpus": 0})(Other)
    serve.run(deployment.bind(), name=name, route_prefix=None)


def test_service_answers_and_leaves_nothing_behind(
    cluster: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODEPMP_API_KEY", raising=False)
    body = {"prompt": PROMPT, "candidates": CANDIDATES}
    start_other_app("codepmp-job-77000000")  # what a killed job leaves on a lasting cluster
    with running_service(recipe_with(execute=True), model) as service:
        assert "codepmp-job-77000000" not in serve.status().applications
        headers = {"x-api-key": service.api_key}
        assert service.key_was_made and service.model_name == "rm-tiny"
        assert service.url.startswith("http://127.0.0.1:")
        assert service.api_key not in repr(service)
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
            assert client.post("/v1/bon", json=body).status_code == 401
            assert client.get("/health").json() == {"status": "ok"}
            answer = client.post("/v1/bon", json=body, headers=headers).json()
            staged = client.post("/v1/bon", json=STAGED, headers=headers)
            refused = client.post("/v1/bon", json={**body, "prompt": "p" * 300}, headers=headers)
            assert refused.status_code == 422
            assert "max_model_len=256" in refused.json()["error"]["message"]
            big = client.post("/v1/bon", content=b"x" * 9_000_000, headers=headers)
            assert big.status_code == 413
            assert client.get("/anything", headers=headers).json()["error"]["code"] == "not_found"
            (card,) = client.get("/v1/models", headers=headers).json()["data"]
            assert card["weights_digest"] == weights_digest(str(model))
            assert (card["max_model_len"], card["dtype"]) == (256, "float32")
            assert client.get("/-/routes").status_code == 401  # Serve's proxy is not there
    expected = asyncio.run(
        best_of_n(Encoder.load(model), TorchScorer.load(model, 256), PROMPT, CANDIDATES)
    )
    assert [item["score"] for item in answer["data"]] == pytest.approx(
        [item.score for item in expected.candidates], abs=TOLERANCE
    )
    assert answer["best_index"] == expected.best_index
    assert [item["truncated"] for item in answer["data"]] == [False] * 4 + [True]
    assert answer["data"][2]["duplicate_of"] == 0
    if MECHANISMS:
        data = staged.json()["data"]
        assert staged.json()["best_index"] == 2
        assert [item.get("fell_out") for item in data] == ["extract", "run", None]
    else:
        assert staged.status_code == 501
    assert refuses_connections(service.url)
    assert not serve.status().applications


@pytest.mark.rehearsal
def test_several_models_have_replicas_of_their_own_and_an_ensemble(
    cluster: None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEPMP_API_KEY", "sk-of-the-cluster")
    contrary = Path(shutil.copytree(model, tmp_path / "contrary"))
    weights = load_file(contrary / "model.safetensors")
    save_file(weights | {"score.weight": -weights["score.weight"]}, contrary / "model.safetensors")
    other = {"model_path": str(contrary), "score_mean": 0.0, "score_std": 1.0, "num_cpus": 0.2}
    recipe = recipe_with(
        num_cpus=0.3, score_mean=0.0, score_std=2.0, other_models={"contrary": other}
    )
    with (
        running_service(recipe, model) as service,
        RewardClient(service.url) as first,
        RewardClient(service.url, model="contrary") as second,
        RewardClient(service.url, model="ensemble") as both,
    ):
        rewards = first.choose(PROMPT, CANDIDATES).rewards
        assert second.choose(PROMPT, CANDIDATES).rewards == pytest.approx([-r for r in rewards])
        joint = both.choose(PROMPT, CANDIDATES)
        assert joint.rewards == pytest.approx([(r / 2 - r) / 2 for r in rewards])
        apart = [item.disagreement for item in joint.scores]
        assert apart == pytest.approx([abs(r / 2 + r) / 2 for r in rewards])
        assert first.served_model().name == "rm-tiny"
        assert second.served_model().weights_digest == weights_digest(str(contrary))
        cards = httpx.get(f"{service.url}/v1/models", headers={"x-api-key": service.api_key}).json()
        assert all(card["ready"] for card in cards["data"]) and len(cards["data"]) == 4
        assert cards["data"][0]["host_memory_bytes"] > 50_000_000
        assert set(serve.status().applications[service.app_name].deployments) == {
            *("Ingress", "ScorerReplica", "ScorerReplica-contrary"),
        }


@pytest.mark.rehearsal
def test_two_replicas_serve_every_dialect_with_a_warm_prompt_each(
    cluster: None, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Through the prefix router: the same scores whoever answers, deadlines, keys and figures."""
    monkeypatch.setenv("CODEPMP_API_KEY", "sk-of-the-cluster")
    monkeypatch.chdir(tmp_path)
    Path("keys").write_text(digest_of("sk-second"))
    serving = {
        "num_replicas": 1,
        "max_replicas": 2,
        "num_cpus": 0.3,
        "api_keys_file": "keys",
        "metrics_token_sha256": [digest_of("scrape")],
    }
    prompts = [f"Add {number} to x." for number in range(6)]
    scorer, encoder = TorchScorer.load(model, 256), Encoder.load(model)
    expected = [
        [item.score for item in asyncio.run(best_of_n(encoder, scorer, p, ["a", "bb"])).candidates]
        for p in prompts
    ]
    with (
        running_service(recipe_with(**serving), model) as service,
        httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client,
    ):
        client.headers["authorization"] = "Bearer sk-of-the-cluster"
        for prompt, scores in zip(prompts, expected, strict=True):
            body = {"query": prompt, "documents": ["a", "bb"]}
            results = client.post("/v1/rerank", json=body).json()["results"]
            by_index = {item["index"]: item["relevance_score"] for item in results}
            assert [by_index[0], by_index[1]] == pytest.approx(scores, abs=TOLERANCE)
        pairs = {"text_1": prompts, "text_2": ["bb"] * 6}
        found = [row["score"] for row in client.post("/score", json=pairs).json()["data"]]
        assert found == pytest.approx([scores[1] for scores in expected], abs=TOLERANCE)
        many = {"prompt": "p", "candidates": ["x" * (1 + i) for i in range(250)]}
        late = client.post("/v1/bon", json={**many, "deadline_ms": 1})
        assert late.status_code == 504 or late.json()["partial"]
        assert client.get("/").status_code == 200 and client.get("/metrics").status_code == 401
        second = {"authorization": "Bearer sk-second"}
        assert client.get("/v1/models", headers=second).status_code == 200
        figures = client.get("/metrics", headers={"authorization": "Bearer scrape"}).text
        assert 'codepmp_requests_total{route="/v1/rerank",status="200"} 6.0' in figures


@pytest.mark.rehearsal
def test_parity_job_compares_four_ways(
    cluster: None, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    facts = json.loads((folder / "config.json").read_text())
    # HumanEval's prompts are long in bytes; rotary positions have no table that could end.
    (folder / "config.json").write_text(json.dumps(facts | {"max_position_embeddings": 4096}))
    recipe = recipe_with(model_path=str(folder), max_model_len=4096)
    parity(recipe, questions=2, candidates=3)
    shown = " ".join(capsys.readouterr().out.split())  # a narrow terminal breaks the title
    names = ("transformers - trainer", "transformers - torch", "trainer - HTTP", "torch - HTTP")
    assert all(name in shown for name in names)
    assert "tolerance 0.0001" in shown and shown.count("2 of 2") == 6


def test_busy_port_is_refused_with_the_remedy(cluster: None, model: Path) -> None:
    with socket.socket() as taken:
        # As Serve does: two listeners of one user could share the port without an error.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ResourceError, match=rf"serving.port={port}.*\(serving.port=\.\.\.\)"),
            running_service(recipe_with(port=port), model),
        ):
            pass
    with open_port("127.0.0.1", port) as free:
        assert free.getsockname()[1] == port


def test_replicas_that_never_fit_are_refused_with_numbers(cluster: None, model: Path) -> None:
    with (
        pytest.raises(ResourceError, match=r"num_replicas=1000 .*needs 1000 CPU, but.*has"),
        running_service(recipe_with(num_replicas=1000, num_cpus=1), model),
    ):
        pass


def test_folders_that_cannot_be_served_are_refused(
    cluster: None, model: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(InputError, match=r"no config\.json"),
        running_service(recipe_with(), tmp_path / "missing"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="max_model_len=4096 exceeds the 512 positions"),
        running_service(recipe_with(max_model_len=4096), model),
    ):
        pass


@pytest.mark.rehearsal
@pytest.mark.parametrize("is_first", [True, False])
def test_damaged_weights_end_the_start_with_their_folder_named(
    cluster: None, model: Path, tmp_path: Path, is_first: bool
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    first, others = (damaged, {}) if is_first else (model, {"b": {"model_path": str(damaged)}})
    with (
        pytest.raises(ModelError, match=r"cannot start with the model in \S*damaged:"),
        running_service(recipe_with(num_cpus=0.3, other_models=others), first),
    ):
        pass
    assert not serve.status().applications


def test_serve_of_others_is_left_alone(cluster: None, model: Path) -> None:
    start_other_app("someone")
    with (
        pytest.raises(ResourceError, match="already runs someone"),
        running_service(recipe_with(), model),
    ):
        pass
    assert list(serve.status().applications) == ["someone"]
    serve.shutdown()


def test_builder_for_serve_deploy(
    cluster: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODEPMP_API_KEY", raising=False)
    args = {"model_path": str(model), "engine": "torch", "max_model_len": 256}
    with pytest.raises(ConfigError, match="no API key"):
        build_app(args)
    with pytest.raises(ConfigError, match="not a sha256 digest"):
        build_app({**args, "api_key_sha256": ["plain key"]})
    with pytest.raises(ConfigError, match="speed"):
        build_app({**args, "speed": 1})
    monkeypatch.setenv("CODEPMP_API_KEY", "a-key-of-the-tests")
    with pytest.raises(ConfigError, match="model_path"):
        build_app({"engine": "torch"})
    assert isinstance(build_app(args), serve.Application)


def processes_with(mark: str) -> list[str]:
    """Command lines of the running processes that inherited `mark` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


@pytest.mark.rehearsal
def test_a_service_ends_with_its_killed_job(cluster: None, model: Path, tmp_path: Path) -> None:
    """On a cluster that goes on, where Serve's processes would outlive the job."""
    recipe = tmp_path / "recipe.yaml"
    fields = {"engine": "torch", "max_model_len": 256, "port": 0, "num_cpus": 0.5}
    recipe.write_text(json.dumps({"serving": fields | {"model_path": str(model)}}))
    address = ray.get_runtime_context().gcs_address
    job = subprocess.Popen(
        [sys.executable, "-m", "jobs.serve", "--config", str(recipe)],
        env=os.environ | {"RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert job.stdout is not None
        assert any(line.startswith("Serving ") for line in job.stdout)
    finally:
        job.kill()
        job.communicate()
    wait_until(lambda: not serve.status().applications)


@pytest.mark.rehearsal
def test_job_serves_until_sigterm_answers_who_is_inside_and_leaves_no_process(
    model: Path, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    recipe = tmp_path / "recipe.yaml"
    fields = {"engine": "torch", "max_model_len": 256, "port": 0, "num_cpus": 0.5}
    fields |= {"metrics_token_sha256": [digest_of("scrape")]}
    recipe.write_text(json.dumps({"serving": fields}))  # JSON is YAML
    command = [sys.executable, "-m", "jobs.serve", "--config", str(recipe)]
    # Without RAY_ADDRESS it starts its own Ray; the key comes from the environment.
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"CODEPMP_API_KEY": f"key-{mark}", "CODEPMP_TEST_MARK": mark}
    job = subprocess.Popen(
        [*command, f"serving.model_path={json.dumps(str(model))}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert job.stdout is not None
        url = ""
        for line in job.stdout:
            if line.startswith("Serving rm-tiny at "):
                url = line.split()[3]
            if line.startswith("curl "):
                break
        assert url, job.stderr.read() if job.stderr else ""
        assert "$CODEPMP_API_KEY" in line and mark not in line  # a given key is not printed
        pasted = subprocess.run(
            ["bash", "-c", line], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(pasted.stdout)["object"] == "best_of_n"
        assert processes_with(mark)
        answers: list[int] = []
        body = {"prompt": "p", "candidates": [f"{i:0200}" for i in range(256)]}

        def ask() -> None:
            key = {"x-api-key": f"key-{mark}"}
            answer = httpx.post(f"{url}/v1/bon", json=body, headers=key, timeout=PATIENCE_S)
            answers.append(answer.status_code)

        def num_tokens_inside() -> float:
            text = httpx.get(f"{url}/metrics", headers={"x-api-key": "scrape"}).text
            lines = [line.split() for line in text.splitlines()]
            names = ("codepmp_tokens_in_flight", "codepmp_tokens_waiting")
            return sum(float(line[1]) for line in lines if line and line[0] in names)

        callers = [threading.Thread(target=ask) for _ in range(6)]
        callers[0].start()
        wait_until(lambda: num_tokens_inside() > 0, poll_s=0.01)
        of_one = num_tokens_inside() or 1.0
        for thread in callers[1:]:
            thread.start()
        wait_until(lambda: num_tokens_inside() > of_one, poll_s=0.01)
        num_answered = len(answers)
        job.send_signal(signal.SIGTERM)
        for thread in callers:
            thread.join()
        # Two at least were inside; who comes later is told to come again.
        assert answers.count(200) >= num_answered + 2 and set(answers) <= {200, 503}
        _, errors = job.communicate(timeout=PATIENCE_S)
        assert job.returncode == 0, errors
        assert errors.strip().endswith("Stopped.")
        assert refuses_connections(url)
        give_up_s = time.monotonic() + PATIENCE_S  # Ray's helpers notice within seconds
        while processes_with(mark) and time.monotonic() < give_up_s:
            time.sleep(0.2)
        assert processes_with(mark) == []
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
