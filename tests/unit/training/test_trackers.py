"""What trackers get, and what happens without their package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from codepmp_ray.errors import ConfigError
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.trackers import open_trackers, require_trackers


def test_a_missing_package_is_refused_with_the_way_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"codepmp-ray\[tensorboard\]"):
        require_trackers(["tensorboard"])
    require_trackers([])


def test_event_files_hold_the_rows_and_a_resume_takes_the_place_of_lost_steps(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorboard", reason="an extra that the dev extra installs")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = LocalStore(tmp_path)
    (tracker,) = open_trackers(["tensorboard"], store, 0)
    for step, loss in ((1, 3.0), (2, 2.0), (3, 9.0)):
        tracker.log({"step": step, "total_steps": 3, "loss": loss, "mfu": None, "skipped": False})
    tracker.close()
    (tracker,) = open_trackers(["tensorboard"], store, 2)  # killed; resumed after step 2
    tracker.log({"step": 3, "total_steps": 3, "loss": 1.0})
    tracker.log({"step": 3, "total_steps": 3, "eval_loss": 0.5})
    tracker.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 3), (2, 2), (3, 1)]
    assert [(e.step, e.value) for e in found.Scalars("eval/loss")] == [(3, 0.5)]
