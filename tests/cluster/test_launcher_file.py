"""cluster.yaml, checked offline by the functions that `ray up` itself calls first."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_ray_accepts_the_file(raw: dict[str, Any]) -> None:
    config = prepare_config(copy.deepcopy(raw))
    validate_config(config)
    # The file's own commands, not those of Ray's defaults, which install another Ray.
    assert config["setup_commands"][0].endswith("scripts/setup.sh")


def test_an_unknown_key_would_be_noticed(raw: dict[str, Any]) -> None:
    raw["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(raw))


def test_the_roles_start_empty_and_can_grow_to_the_total(raw: dict[str, Any]) -> None:
    types = raw["available_node_types"]
    workers = {name: node for name, node in types.items() if name != raw["head_node_type"]}
    assert set(workers) == {"strong-synthesis", "weak-synthesis", "trainer", "server"}
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers.values())
    assert raw["max_workers"] == sum(node["max_workers"] for node in workers.values())
    # Ray Data's tasks ask for memory: a type that declares none is never started for them.
    assert all(node["resources"]["memory"] > 0 for node in types.values())
    assert all(node["resources"]["GPU"] >= 1 for node in workers.values())


def test_nodes_authenticate(raw: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in raw["file_mounts"]
    for command in (raw["head_start_ray_commands"][-1], raw["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in raw["head_start_ray_commands"][-1]
