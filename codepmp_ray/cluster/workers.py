"""How many workers a training asks for, and what it gets: num_workers is a demand."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ray.train import ScalingConfig

from codepmp_ray.cluster.connect import owns_cluster
from codepmp_ray.cluster.placement import Need
from codepmp_ray.cluster.preflight import possible_resources, require_needs
from codepmp_ray.config.training import TrainingConfig


def scaling_of(stage: str, config: TrainingConfig) -> tuple[ScalingConfig, bool]:
    """Workers and where they run. Raises ResourceError when the fewest do not fit."""
    workers = training_need(stage, config)
    require_needs([workers.need])
    if workers.at_hand < config.num_workers:
        print(f"{stage}: {workers.describe()}", file=sys.stderr)
    use_gpu, fewest = "GPU" in workers.need.resources, workers.need.count
    scaling = ScalingConfig(
        # Nodes that nobody has announced may join a cluster, but not a Ray of this process.
        num_workers=workers.at_hand if owns_cluster() else _between(fewest, workers.wanted),
        use_gpu=use_gpu,
        resources_per_worker=dict(workers.need.resources),
        label_selector=dict(config.label_selector) or None,
        elastic_resize_monitor_interval_s=config.elastic_interval_s,
    )
    return scaling, use_gpu


def _between(fewest: int, most: int) -> int | tuple[int, int]:
    return fewest if fewest == most else (fewest, most)


@dataclass(frozen=True)
class Workers:
    """What a training asks for: `need` are the fewest workers that it begins with; of the `wanted`
    ones, `at_hand` are what the nodes that there are and that may come hold."""

    need: Need
    at_hand: int
    wanted: int

    def describe(self) -> str:
        """For people: "2 x (1 CPU, 1 GPU), up to 8: this cluster holds 4 instead of 8"."""
        more = f", up to {self.wanted}" if self.wanted > self.need.count else ""
        less = f": this cluster holds {self.at_hand} instead of {self.wanted}"
        return f"{self.need.describe()}{more}{less if self.at_hand < self.wanted else ''}"


def training_need(stage: str, config: TrainingConfig) -> Workers:
    """Workers of a stage on this cluster, each with a GPU where there are any and `use_gpu` does
    not say no.

    `num_workers` is a demand, and only `min_workers` makes it a wish: the result does not depend
    on their number, but memory and time do.
    """
    have = possible_resources(config.label_selector)
    use_gpu = config.use_gpu if config.use_gpu is not None else have.get("GPU", 0.0) > 0
    each = {"CPU": config.cpus_per_worker, **({"GPU": 1.0} if use_gpu else {})}
    wanted = config.num_workers
    fewest = config.min_workers or wanted
    room = min(have.get(name, 0.0) / amount for name, amount in each.items())
    need = Need(
        f"The {stage} stage with {fewest} workers",
        each,
        fewest,
        config.label_selector,
        f"Set {stage}.min_workers to begin with fewer, lower {stage}.num_workers or "
        "cpus_per_worker, or run on a larger cluster.",
    )
    return Workers(need, max(fewest, int(min(wanted, room))), wanted)
