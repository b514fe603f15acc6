"""Hub models are pinned: one commit for all nodes, jobs and resumes of a run directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from pydantic import ValidationError

from codepmp_ray import hub_models
from codepmp_ray.config.base import Section
from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.config.evaluation import OtherModel, ServingConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.reward_models import RewardConfig
from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.config.study_materials import ModelConfig
from codepmp_ray.config.synthesis import CommitsConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ModelError
from codepmp_ray.hub_models import HubModel, hub_model, is_hub_id, pin, pin_engine
from codepmp_ray.runs import model_identity, reward_model, stage_fingerprints
from tests.hub_server import Repo, hub_server
from tests.processes import PATIENCE_S
from tests.tiny_models import tiny_tokenizer

A, B = "a" * 40, "b" * 40


class FakeHub:
    """What the client says: commits by revision. `asked` are the revisions that were resolved."""

    def __init__(self) -> None:
        self.commits = {"main": A, "v1": "1" * 40}
        self.asked: list[str] = []
        self.is_down = False

    def resolve_revision(self, repo: str, *, revision: str) -> Any:
        self.asked.append(revision)
        return SimpleNamespace(resolved=self._commit(revision))

    def model_info(self, api: Any, repo: str, *, revision: str, timeout: float) -> Any:
        return SimpleNamespace(sha=self._commit(revision))

    def _commit(self, revision: str) -> str:
        if self.is_down:
            raise ConnectionError("no route")
        return self.commits[revision]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "resolve_revision", fake.resolve_revision)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *args, **kw: fake.model_info(*args, **kw)
    )
    hub_models._say_if_moved.cache_clear()
    return fake


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("org/name", None, HubModel("org/name", "main")),
        ("org/name", "v1", HubModel("org/name", "v1")),
        ("hf://org/name", None, HubModel("org/name", "main")),
        ("hf://org/name", "v1", HubModel("org/name", "v1")),
        ("hf://org/name@refs/pr/1", None, HubModel("org/name", "refs/pr/1")),
        ("hf://org/name@v1", "v1", HubModel("org/name", "v1")),
        ("hf://datasets/org/name@v1", None, None),
        ("builtin:smollm2-135m-instruct", None, None),
        ("s3://bucket/a/model", None, None),
        ("/models/x", None, None),
        ("./models/x", None, None),
        ("~/x", None, None),
        ("file://models/x", None, None),
        ("a/b/c", None, None),
    ],
)
def test_names_of_the_hub(name: str, revision: str | None, expected: HubModel | None) -> None:
    assert hub_model(name, revision) == expected
    assert is_hub_id(name) == (expected is not None)


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/name")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not is_hub_id("org/name")


@pytest.mark.parametrize("name", ["/models/x", "s3://bucket/x", "builtin:smollm2-135m-instruct"])
def test_a_revision_beside_what_has_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"revision='v1' stands beside .* no model of the hub"):
        pin(str(tmp_path), name, "v1")
    assert pin(str(tmp_path), name) == name
    assert list(tmp_path.iterdir()) == []


def test_two_revisions_of_one_model_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'v1', and revision='v2'"):
        hub_model("hf://org/name@v1", "v2")


def test_a_run_keeps_its_commit_and_says_when_the_hub_has_moved_on(
    hub: FakeHub, tmp_path: Path, capsys
) -> None:
    run, other = str(tmp_path / "run"), str(tmp_path / "other")
    assert pin(run, "org/name") == f"hf://org/name@{A}"
    assert capsys.readouterr().err == ""
    (record,) = (tmp_path / "run" / "hub_models").iterdir()
    found = json.loads(record.read_text())
    assert (found["model"], found["revision"], found["commit"]) == ("org/name", "main", A)
    hub.commits["main"] = B
    assert pin(run, "org/name") == pin(run, "org/name", "main") == f"hf://org/name@{A}"
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and A in told and B in told and f"revision={B}" in told
    assert pin(run, "org/name", B) == f"hf://org/name@{B}"
    assert pin(run, "org/name", "v1") == f"hf://org/name@{'1' * 40}"
    assert pin(other, "org/name") == f"hf://org/name@{B}"
    hub.is_down = True
    assert pin(run, "org/name") == f"hf://org/name@{A}"
    with pytest.raises(ModelError, match=r"'org/new' at revision main: ConnectionError: no route"):
        pin(run, "org/new")


def test_a_full_commit_is_not_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    hub.is_down = True
    assert pin(str(tmp_path), "org/name", A) == f"hf://org/name@{A}"
    assert hub.asked == []


def test_who_races_gets_the_commit_of_the_first(hub: FakeHub, tmp_path: Path, monkeypatch) -> None:
    commits: Iterator[str] = iter(f"{number:040x}" for number in range(99))
    monkeypatch.setattr(hub, "_commit", lambda revision: next(commits))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: pin(str(tmp_path), "org/name"), range(16)))
    assert len(found) == 1


def test_engines_get_the_commit_beside_their_name(hub: FakeHub, tmp_path: Path) -> None:
    engine = EngineConfig(model_name_or_path="org/name", revision="v1", max_model_len=64)
    pinned = pin_engine(str(tmp_path), engine)
    assert (pinned.model_name_or_path, pinned.revision) == ("org/name", "1" * 40)
    assert pinned.max_model_len == 64
    assert pin_engine(str(tmp_path), pinned) == pinned
    fake = engine.model_copy(update={"kind": "fake"})
    assert pin_engine(str(tmp_path), fake) == fake


def _sections(kind: type[Section], seen: set[type[Section]]) -> set[type[Section]]:
    """All classes of sections below `kind`."""
    seen.add(kind)
    for info in kind.model_fields.values():
        waiting = [info.annotation]
        while waiting:
            found = waiting.pop()
            waiting += typing.get_args(found)
            if isinstance(found, type) and issubclass(found, Section) and found not in seen:
                _sections(found, seen)
    return seen


def test_every_section_that_names_a_model_has_a_revision() -> None:
    sections = _sections(StudiesConfig, _sections(Recipe, set()))
    named = {
        section
        for section in sections
        if {"model_name_or_path", "model_path"} & set(section.model_fields)
    }
    # A reward model at hand has to be a folder: only there is its template.
    own = {EngineConfig, TrainingConfig, ServingConfig, OtherModel, ModelConfig}
    assert named - {RewardConfig} == own
    with_revision = {section for section in sections if "revision" in section.model_fields}
    assert with_revision == (named - {RewardConfig}) | {
        DataSourceConfig,
        SourceConfig,
        CommitsConfig,  # of git
    }


@pytest.mark.parametrize(
    ("section", "key", "stages"),
    [
        ("engines.strong", "model_name_or_path", {"synthesis", "pretraining", "candidates"}),
        ("engines.weak", "model_name_or_path", {"synthesis"}),
        ("candidates.engine", "model_name_or_path", {"candidates"}),
        ("pretraining", "model_name_or_path", {"pretraining"}),
        ("finetuning", "model_name_or_path", {"finetuning"}),
        ("serving", "model_path", {"evaluation", "scoring"}),
    ],
)
def test_another_revision_is_another_model(section: str, key: str, stages: set[str]) -> None:
    def prints(**more: str | None) -> dict[str, str]:
        data: dict[str, Any] = {key: "org/base", **more}
        for part in reversed(section.split(".")):
            data = {part: data}
        recipe = Recipe.model_validate(data)
        return stage_fingerprints(recipe) | {"identity": str(model_identity(recipe))}

    plain, pinned = prints(), prints(revision="v1")
    changed = {name for name in plain if plain[name] != pinned[name]}
    assert changed >= stages
    assert prints(revision=None) == plain
    if section == "serving":
        assert "identity" in changed


def test_the_served_model_is_pinned_in_the_run(hub: FakeHub, tmp_path: Path) -> None:
    serving = {"model_path": "org/reward", "revision": "v1"}
    recipe = Recipe.model_validate({"run_dir": str(tmp_path), "serving": serving})
    assert reward_model(recipe) == f"hf://org/reward@{'1' * 40}"
    hub.commits["v1"] = B
    assert reward_model(recipe) == f"hf://org/reward@{'1' * 40}"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (EngineConfig, {"engine_args": {"revision": "x"}}, "set revision beside"),
        (EngineConfig, {"engine_args": {"tokenizer_revision": "x"}}, "set revision beside"),
        (TrainingConfig, {"revision": "x"}, "model_name_or_path, which is not set"),
        (ServingConfig, {"revision": "x"}, "model_path, which is not set"),
        (ModelConfig, {"revision": "x"}, "model_name_or_path, which is not set"),
    ],
)
def test_a_revision_of_no_model_is_refused(kind: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        kind.model_validate(fields)


_TRAIN = """
import json, os, sys
from codepmp_ray.cluster.training import pretrain
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.runs import open_stage

for run_dir in sys.argv[2:]:
    recipe = parse_recipe({"run_dir": run_dir, "pretraining": json.loads(sys.argv[1])}, "test")
    summary = pretrain(recipe, in_process=True)
    manifest = json.loads(open_stage(recipe, "pretraining").store.read_bytes("manifest.json"))
    print("RUN", json.dumps([manifest["models"]["base"], summary["final_loss"]]), flush=True)
os._exit(0)
"""


@pytest.mark.rehearsal  # three trainings of two steps in processes of their own
def test_trainings_from_the_hub_stay_with_their_commit_also_without_the_hub(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir() if path.is_file()}
    assert "config.json" in files
    # The branch moves on to a model of the same weights whose configuration says more.
    moved = files | {"config.json": files["config.json"].replace(b"{", b'{"comment": "new",', 1)}
    repo = Repo({A: files, B: moved}, {"main": A})
    rows = [{"prompt": f"Add {n}.", "chosen": f"x + {n}", "rejected": f"x - {n}"} for n in range(8)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model_name_or_path": "me/tiny", "data": [{"path": str(data)}], "template": "plain",
        "max_length": 64, "batch_size": 4, "bf16": False, "eval_fraction": 0.0, "max_steps": 2,
    }  # fmt: skip
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hf"),
        "CODEPMP_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    environment.pop("HF_HUB_OFFLINE", None)

    def train(*run_dirs: str, **more: str) -> list[list[Any]]:
        done = subprocess.run(
            [sys.executable, "-c", _TRAIN, json.dumps(config)]
            + [str(tmp_path / name) for name in run_dirs],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = done.stdout.splitlines()
        return [json.loads(line[4:]) for line in lines if line.startswith("RUN ")]

    with hub_server({}, {"me/tiny": repo}) as (address, requests):
        (first,) = train("first", HF_ENDPOINT=address)
        assert first[0] == f"hf://me/tiny@{A}"
        repo.refs["main"] = B
        stage = next((tmp_path / "first").glob("pretraining-*"))
        for left in ("complete.json", "model/config.json"):
            (stage / left).unlink()
        again, other = train("first", "other", HF_ENDPOINT=address)
        assert again[0] == first[0]
        assert other[0] == f"hf://me/tiny@{B}"
        assert other[1] == first[1]  # the same weights
        weights = [r for r in requests if r.startswith("GET") and r.endswith(".safetensors")]
        assert len(weights) == len(set(weights)), weights  # once for each commit
    (offline,) = train("offline", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline == other


@pytest.mark.parametrize("revision", [None, "v1", B])
def test_vllm_loads_weights_and_tokenizer_of_one_commit(
    hub: FakeHub, revision: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from codepmp_ray.cluster import engines

    started: list[tuple[str, dict[str, Any]]] = []

    def start_engine(name: str, arguments: dict[str, Any], remedy: str) -> Any:
        started.append((name, arguments))
        return SimpleNamespace(get_tokenizer=lambda: None)

    tokenized: list[tuple[str, Any]] = []

    def load_tokenizer(model: str, arguments: dict[str, Any]) -> Any:
        tokenized.append((model, arguments.get("tokenizer_revision")))
        return tiny_tokenizer()

    monkeypatch.setattr(engines, "start_engine", start_engine)
    monkeypatch.setattr(engines, "load_tokenizer", load_tokenizer)
    monkeypatch.setattr(engines, "apply", lambda environment: None)
    plain = EngineConfig(model_name_or_path="org/name", revision=revision, chat_template="plain")
    engines.make_engine(plain)
    (tmp_path / "config.json").write_text("{}")
    engines.make_engine(
        plain.model_copy(update={"model_name_or_path": str(tmp_path), "revision": None})
    )
    (name, arguments), (folder, others) = started
    commit = hub.commits.get(revision or "main", B)
    assert name == "org/name"
    assert arguments["revision"] == arguments["tokenizer_revision"] == commit
    assert folder == str(tmp_path) and "revision" not in others
    assert tokenized == [("org/name", commit), (str(tmp_path), None)]
