"""Engines, trainers and replicas on nodes by label, and `jobs.check`, on three nodes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.placement_driver import LABEL
from tests.ray_nodes import BIN, RayNodes

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.rehearsal
ROLES = ("strong-synthesis", "weak-synthesis")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one driver saw; a cluster costs more than what is asked of it."""
    nodes = RayNodes(tmp_path_factory.mktemp("nodes"))
    try:
        nodes.start_head(num_cpus=2)
        for role in ROLES:
            nodes.start_worker(1, {LABEL: role})
        folder = tmp_path_factory.mktemp("driver")
        done = subprocess.run(
            [str(BIN / "python"), "-m", "tests.placement_driver", str(folder)],
            cwd=ROOT,
            env={**nodes.environment, "RAY_ADDRESS": nodes.address},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        nodes.stop()


def test_each_pool_runs_where_its_label_is(found: dict[str, Any]) -> None:
    assert found["engines"] == {"strong": ["strong-synthesis"], "weak": ["weak-synthesis"]}


def test_workers_train_and_replicas_serve_where_their_labels_are(found: dict[str, Any]) -> None:
    assert (found["training"], found["serving"]) == ("weak-synthesis", "strong-synthesis")


def test_a_service_ends_with_its_job_and_not_with_a_node(found: dict[str, Any]) -> None:
    """Its owner lay on any node, and the death of that one took the service from all others."""
    assert found["owners"] == [found["driver"]]


def test_a_label_that_nothing_has_is_refused_unless_a_node_type_may_bring_it(
    found: dict[str, Any],
) -> None:
    assert f"labelled {LABEL}=absent-synthesis" in found["absent"]
    assert all(role in found["absent"] for role in ROLES)
    assert found["may_come"] == "fits"


def test_check_asks_every_node_and_leaves_nothing_behind(found: dict[str, Any]) -> None:
    lines = found["check"][0].splitlines()
    assert "3 nodes: 4 CPU, 0 GPU" in lines[0] and "may add 2 absent-synthesis" in lines[0]
    assert any(
        line.startswith("ok      versions        3 nodes alike: python 3.") for line in lines
    )
    assert any(
        line.startswith("ok      storage") and "3 nodes read and write the same files" in line
        for line in lines
    )
    assert any(line.startswith("ok      synthesis") and "1 x (1 CPU)" in line for line in lines)
    assert found["left"] == []


def test_check_fails_with_the_number_of_problems_and_names_each(found: dict[str, Any]) -> None:
    text, error = found["check"]
    failed = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1 and "absent" in failed[0] and "does not exist" in failed[0]
    assert len(re.findall(r"[\d.]+-[0-9a-f]{6}\b", failed[0])) == 3  # every node says so
    assert error.startswith("1 of ")
