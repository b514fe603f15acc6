"""`cluster check --deep` on a Ray of one node: what it measures, and that nothing is left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import placement_group_table

from codepmp_ray.cluster import deep_check
from codepmp_ray.cluster.check_findings import Finding
from codepmp_ray.cluster.deep_check import deep_findings, reduce_rate
from codepmp_ray.cluster.placement import Need
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ResourceError, StorageError
from tests.processes import PATIENCE_S
from tests.tiny_models import save_tiny_base_model

LIMIT_S = 36_000.0  # as long as it takes: a machine that is busy measures, too


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_base_model(tmp_path_factory.mktemp("model") / "base"))


def recipe_of(run_dir: Path, model: str, **training: object) -> Recipe:
    """Two trainings, whose workers are the same."""
    section = {"num_workers": 2, "cpus_per_worker": 0.5, "use_gpu": False, **training}
    sections = {name: {**section, "model_name_or_path": model} for name in deep_check.TRAINING}
    return parse_recipe({"run_dir": str(run_dir), **sections}, "test")


def measured(recipe: Recipe, limit_s: float = LIMIT_S) -> list[Finding]:
    return list(deep_findings(recipe, deep_check.TRAINING, limit_s))


def require_nothing_left(run_dir: Path) -> None:
    assert list(run_dir.iterdir()) == []
    groups = placement_group_table().values()
    assert {group["state"] for group in groups} <= {"REMOVED"}


@pytest.mark.rehearsal
def test_every_rate_is_measured_once_and_nothing_is_left(
    ray_cluster: None, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(recipe_of(tmp_path, model))
    assert [(line.subject, line.state) for line in found] == [
        *[("storage rate", "ok")] * 3,
        *(("all-reduce", "ok"), ("model time", "ok")),
    ], found
    reduced = found[3].detail
    assert "2 workers on 1 node" in reduced and all(name in reduced for name in deep_check.TRAINING)
    assert found[4].detail.startswith(model)
    cost = capsys.readouterr().err
    assert f"at most {LIMIT_S:g} s" in cost and "2 x (0.5 CPU)" in cost and model in cost
    require_nothing_left(tmp_path)


def test_workers_that_find_no_room_are_waited_for_in_vain(ray_cluster: None) -> None:
    held = ray.util.placement_group([{"CPU": int(ray.cluster_resources()["CPU"])}])
    assert held.wait(PATIENCE_S)
    try:
        with pytest.raises(ResourceError, match=r"2 x \(0.5 CPU\): no room within 1 s"):
            reduce_rate(Need("training", {"CPU": 0.5}, 2), 1.0)
    finally:
        ray.util.remove_placement_group(held)
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}


def fail(error: Exception) -> list[Finding]:
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ResourceError("no room within 9 s", "x"), "no room within 9 s"),
        (StorageError("the store is full", "x"), "the store is full"),
        (GetTimeoutError("x"), "were too short"),
        (RayActorError(error_msg="a traceback\nKilled: the worker died"), "the worker died"),
    ],
)
def test_what_cannot_be_measured_is_unknown_with_its_reason(error: Exception, said: str) -> None:
    later_s = time.monotonic() + PATIENCE_S
    (finding,) = deep_check._measured("all-reduce", lambda left_s: fail(error), later_s)
    assert (finding.subject, finding.state) == ("all-reduce", "unknown") and said in finding.detail


def test_one_worker_has_nobody_to_sum_up_with(
    ray_cluster: None, tmp_path: Path, model: str
) -> None:
    found = measured(recipe_of(tmp_path, model, num_workers=1), 1e-9)
    (alone,) = [line for line in found if line.subject == "all-reduce"]
    assert alone.state == "ok" and "one worker" in alone.detail
    late = [line for line in found if line.subject in ("storage rate", "model time")]
    assert {line.state for line in late} == {"unknown"} and "no time" in late[0].detail
    require_nothing_left(tmp_path)
