"""What trackers get, and what happens without their package."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.task import TrainingTask
from codepmp_ray.training.trackers import open_trackers, require_trackers
from tests.processes import PATIENCE_S

SETTINGS = {"stage": "finetuning", "learning_rate": 3e-6, "data": [{"kind": "preference"}]}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_refused_with_the_way_to_get_it(name: str, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"codepmp-ray\[{name}\]"):
        require_trackers([name])
    require_trackers([])


def test_event_files_hold_the_rows_and_a_resume_takes_the_place_of_lost_steps(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorboard", reason="an extra that the dev extra installs")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = LocalStore(tmp_path)
    (tracker,) = open_trackers(["tensorboard"], store, 0, SETTINGS)
    for step, loss in ((1, 3.0), (2, 2.0), (3, 9.0)):
        tracker.log({"step": step, "total_steps": 3, "loss": loss, "mfu": None, "skipped": False})
    tracker.close()
    (tracker,) = open_trackers(["tensorboard"], store, 2, SETTINGS)  # killed; resumed after step 2
    tracker.log({"step": 3, "total_steps": 3, "loss": 1.0})
    tracker.log({"step": 3, "total_steps": 3, "eval_loss": 0.5})
    tracker.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 3), (2, 2), (3, 1)]
    assert [(e.step, e.value) for e in found.Scalars("eval/loss")] == [(3, 0.5)]
    (told, *_) = found.Tensors("args/text_summary")
    assert json.loads(told.tensor_proto.string_val[0]) == SETTINGS


def test_offline_runs_of_wandb_hold_the_rows(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="an extra that the dev extra installs")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    store = LocalStore(tmp_path / "a run" / "pretraining")
    (tracker,) = open_trackers(["wandb"], store, 0, SETTINGS)
    tracker.log({"step": 1, "total_steps": 3, "loss": 3.25, "mfu": None, "skipped": False})
    tracker.log({"step": 1, "total_steps": 3, "eval_loss": 0.125})
    tracker.close()
    (run,) = store.path("wandb").glob("offline-run-*/run-*.wandb")
    words = (
        b"learning_rate",
        b"3e-6",
        b"codepmp-ray",
        b"a run/pretraining",
        b"train/loss",
        b"3.25",
        b"eval/loss",
        b"0.125",
    )
    deadline_s = time.monotonic() + PATIENCE_S  # another process of wandb's writes it
    while not all(word in run.read_bytes() for word in words):
        assert time.monotonic() < deadline_s, run.read_bytes()
        time.sleep(0.1)


def test_wandb_without_a_key_says_what_to_set(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb", reason="an extra that the dev extra installs")

    def refuse(**settings: Any) -> None:
        raise wandb.Error("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match=r"(?s)No API key.*WANDB_MODE=offline"):
        open_trackers(["wandb"], LocalStore(tmp_path), 0, SETTINGS)


def test_all_attempts_of_a_stage_are_one_run_of_wandb(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb", reason="an extra that the dev extra installs")
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **settings: asked.append(settings))
    for name in ("one", "one", "other"):
        open_trackers(["wandb"], LocalStore(tmp_path / name), 0, SETTINGS)
    ids = [settings["id"] for settings in asked]
    assert ids[0] == ids[1] != ids[2]
    assert all(settings["resume"] == "allow" for settings in asked)
    assert all(settings["config"] == SETTINGS for settings in asked)


@pytest.fixture
def trackio(tmp_path: Path, monkeypatch) -> Any:
    """With its databases in a folder of the test's own; it looks where once, at its import."""
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return pytest.importorskip("trackio", reason="an extra that the dev extra installs")


def test_runs_of_trackio_hold_the_rows_and_settings_of_all_attempts(
    tmp_path: Path, trackio: Any, capsys
) -> None:
    store = LocalStore(tmp_path / "a run" / "pretraining")
    (tracker,) = open_trackers(["trackio"], store, 0, SETTINGS)
    tracker.log({"step": 1, "total_steps": 3, "loss": 3.25, "mfu": None, "skipped": False})
    tracker.close()
    (tracker,) = open_trackers(["trackio"], store, 1, SETTINGS)  # killed; resumed
    tracker.log({"step": 2, "total_steps": 3, "eval_loss": 0.125})
    tracker.close()
    assert not capsys.readouterr().out  # what a command prints there is its result
    SQLiteStorage = import_module("trackio.sqlite_storage").SQLiteStorage
    runs = SQLiteStorage.get_runs("codepmp-ray")
    (name,) = [name for name in runs if name.startswith("a run/pretraining ")]
    rows = SQLiteStorage.get_logs("codepmp-ray", name)
    assert [(row["step"], row.get("train/loss"), row.get("eval/loss")) for row in rows] == [
        (1, 3.25, None),
        (2, None, 0.125),
    ]
    assert SETTINGS.items() <= SQLiteStorage.get_run_config("codepmp-ray", name).items()


def test_trackio_without_a_token_says_what_to_do(tmp_path: Path, trackio: Any, monkeypatch) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("TRACKIO_WRITE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"(?s)write token.*leave trackio out of report_to"):
        open_trackers(["trackio"], LocalStore(tmp_path), 0, SETTINGS)


def test_trackers_are_told_every_field_of_the_configuration_and_the_model() -> None:
    config = TrainingConfig.model_validate({"data": [{"path": "pairs.jsonl"}], "max_length": 99})
    told = TrainingTask("pretraining", config, "me/base", (), "out").settings()
    json.dumps(told)
    assert set(TrainingConfig.model_fields) <= set(told)
    assert told["max_length"] == 99 and told["data"][0]["path"] == "pairs.jsonl"
    assert (told["stage"], told["model_name_or_path"]) == ("pretraining", "me/base")
