"""Refuse what the cluster cannot run, with the numbers, before anything waits for it forever.

Ray queues an actor whose CPUs do not exist and says nothing; on a laptop that looks like a hang.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError

from codepmp_ray.cluster.placement import (
    Need,
    Offer,
    combine,
    matching,
    offers_of_node_types,
    require_fit,
    total,
)
from codepmp_ray.config.engines import EngineConfig
from codepmp_ray.errors import ConfigError

# Ray does not tell a job which nodes its autoscaler could add. The head's start command sets this
# to a file that does: on `ray up` clusters the launcher's own configuration.
NODE_TYPES_VARIABLE = "CODEPMP_NODE_TYPES"
_ENGINE_SETTINGS = "engines.*.num_cpus, num_gpus or"


def cluster_offers() -> list[Offer]:
    """The running nodes, and those that the cluster's autoscaler may add.

    Raises ConfigError when $CODEPMP_NODE_TYPES names a file that describes no node types.
    """
    return [*running_offers(), *offers_to_come()]


def running_offers() -> list[Offer]:
    return [
        Offer(
            node["NodeManagerAddress"],
            {name: float(amount) for name, amount in node["Resources"].items()},
            node.get("Labels") or {},
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def offers_to_come() -> list[Offer]:
    """What the autoscaler may add. Raises as `cluster_offers`."""
    running = running_offers()
    return combine(running, _node_types())[len(running) :]


def require_needs(needs: list[Need]) -> None:
    """Raise ResourceError for what the cluster can never hold, ConfigError for a bad selector."""
    for need in needs:
        check_selector(need.what, need.label_selector)
    require_fit(needs, cluster_offers())


def possible_resources(label_selector: Mapping[str, str] | None = None) -> dict[str, float]:
    """What all running nodes, and those that may be added, have together."""
    return total(matching(cluster_offers(), label_selector or {}))


def num_gpus_in_cluster(label_selector: Mapping[str, str] | None = None) -> float:
    """GPUs that there are or may be, where the selector allows."""
    return possible_resources(label_selector).get("GPU", 0.0)


def engine_gpus(engine: EngineConfig) -> float:
    """GPUs of one engine actor: as configured, else one per tensor-parallel rank if any exist."""
    if engine.kind == "fake":
        return 0.0
    if engine.num_gpus is not None:
        return engine.num_gpus
    return float(engine.tensor_parallel_size) if num_gpus_in_cluster(engine.label_selector) else 0.0


def require_engines(
    engines: list[tuple[str, EngineConfig]], settings: str = _ENGINE_SETTINGS
) -> None:
    """All pools must fit at their minimum size at once: they hold their actors throughout.

    `settings` are those that a person could lower.
    """
    require_needs(engine_needs(engines, settings))


def engine_needs(
    engines: list[tuple[str, EngineConfig]], settings: str = _ENGINE_SETTINGS
) -> list[Need]:
    """What the pools hold at their minimum size."""
    return [
        Need(
            f"The engine pool {name} ({engine.min_actors} actors)",
            {"CPU": engine.num_cpus, "GPU": engine_gpus(engine)},
            engine.min_actors,
            engine.label_selector,
            f"Lower {settings} min_actors, or run on a larger cluster.",
        )
        for name, engine in engines
    ]


def waiting_for() -> str:
    """What tasks and actors of the cluster wait for, in words; "" where none does, or Ray does not
    say."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except (RayError, RuntimeError, OSError, ValueError):
        return ""
    asked = [
        Need("", bundle.bundle, bundle.count).describe()
        for demand in status.resource_demands.ray_task_actor_demand
        for bundle in demand.bundles_by_count
    ]
    free = status.available_resources()
    left = ", ".join(f"{free.get(name, 0.0):g} {name}" for name in ("CPU", "GPU") if name in free)
    remedy = "lower num_cpus, num_gpus or min_actors, or end what holds the rest"
    return f"waiting for {', '.join(sorted(asked))}; free: {left}: {remedy}" if asked else ""


def check_selector(what: str, selector: Mapping[str, str]) -> None:
    """Raise ConfigError for a label selector that Ray does not understand."""
    from ray._private.label_utils import validate_label_selector

    if problem := validate_label_selector(dict(selector)):
        raise ConfigError(
            f"{what}: label_selector={dict(selector)} is none: {problem}",
            "Write label: value, !value, in(a, b) or !in(a, b).",
        )


def _node_types() -> list[Offer]:
    path = os.environ.get(NODE_TYPES_VARIABLE)
    if not path:
        return []
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        document: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"${NODE_TYPES_VARIABLE}={path} cannot be read: {error}.",
            "Name a file with available_node_types on the node where jobs run, or unset it.",
        ) from error
    return offers_of_node_types(document, f"${NODE_TYPES_VARIABLE}={path}")
