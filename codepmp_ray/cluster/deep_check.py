"""`cluster check --deep`: rates of the connected cluster, measured by doing.

Three things, one after the other and within one limit: storage from all running nodes at once, an
all-reduce between as many workers as a training asks for, and each model fetched and read. What was
started and written for it is taken away again. What could not be measured is "unknown".
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from codepmp_ray.cluster.check import last_line, node_name, scratch_of
from codepmp_ray.cluster.check_findings import Finding
from codepmp_ray.cluster.deep_findings import (
    ReduceRate,
    StorageRates,
    TrainingSize,
    model_finding,
    reduce_finding,
    storage_findings,
)
from codepmp_ray.cluster.deep_probe import (
    FILE_BYTES,
    NUM_FILES,
    Reducer,
    StorageWorker,
    time_model,
)
from codepmp_ray.cluster.placement import Need, matches
from codepmp_ray.cluster.stage_checks import TRAINING, models_of, training_size
from codepmp_ray.cluster.workers import training_need
from codepmp_ray.config.base import LabelSelector
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import CodePMPError, ResourceError

_Selector = tuple[tuple[str, str], ...]


def deep_findings(recipe: Recipe, waiting: Sequence[str], limit_s: float) -> Iterator[Finding]:
    """Measure for the stages that wait, for at most `limit_s`. Says before what that costs."""
    groups = _groups(recipe, waiting)
    models = dict(models_of(recipe, waiting))
    print(_cost(recipe.run_dir, groups, models, limit_s), file=sys.stderr, flush=True)
    sizes, unplanned = _sizes(recipe, groups)
    yield from unplanned
    give_up_s = time.monotonic() + limit_s
    moved = [size for found in sizes.values() for size in found]

    def of_storage(left_s: float) -> list[Finding]:
        return storage_findings(storage_rates(recipe.run_dir, left_s), moved)

    def of_workers(need: Need, trainings: list[TrainingSize], left_s: float) -> list[Finding]:
        return [reduce_finding(reduce_rate(need, left_s), trainings)]

    yield from _measured("storage rate", of_storage, give_up_s)
    for selector, (need, stages) in groups.items():
        if need.count > 1:
            of_group = partial(of_workers, need, sizes[selector])
            yield from _measured("all-reduce", of_group, give_up_s)
        else:
            text = f"{' and '.join(stages)}: one worker, nothing to sum up with others"
            yield Finding("all-reduce", "ok", text)
    for name, where in models.items():
        yield from _measured("model time", partial(_time_model, name, where), give_up_s)


def _measured(
    subject: str, action: Callable[[float], list[Finding]], give_up_s: float
) -> list[Finding]:
    """What `action` says, which is given the seconds that are left, or why it could not."""
    left_s = give_up_s - time.monotonic()
    if left_s <= 0:
        return [_unknown(subject, "no time was left for it")]
    try:
        return action(left_s)
    except GetTimeoutError:
        return [_unknown(subject, f"{left_s:.0f} s were too short")]
    except CodePMPError as error:
        return [_unknown(subject, error.problem)]
    except RayError as error:
        return [_unknown(subject, last_line(error))]


def storage_rates(run_dir: str, limit_s: float) -> StorageRates:
    """All running nodes write at once, then each reads what another has written."""
    deadline_s = time.monotonic() + limit_s
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    kind = ray.remote(num_cpus=0)(StorageWorker)
    with scratch_of(run_dir) as folder, _ended() as actors:
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            actors.append(kind.options(scheduling_strategy=there).remote(folder.uri))
        _all([actor.__ray_ready__.remote() for actor in actors], deadline_s)
        took_s = [
            max(_all([getattr(a, name).remote(i) for i, a in enumerate(order)], deadline_s))
            for name, order in (("write", actors), ("read", actors[1:] + actors[:1]))
        ]
    num_bytes = len(nodes) * NUM_FILES * FILE_BYTES
    return StorageRates(len(nodes), num_bytes / took_s[0], num_bytes / took_s[1])


def reduce_rate(need: Need, limit_s: float) -> ReduceRate:
    """An all-reduce between `need.count` ranks, placed as Ray Train places its workers.

    Raises ResourceError where they find no room in `limit_s`.
    """
    deadline_s = time.monotonic() + limit_s
    selectors = [dict(need.label_selector)] * need.count
    group = placement_group(
        [dict(need.resources)] * need.count, "PACK", bundle_label_selector=selectors
    )
    with _ended() as actors:
        try:
            if not group.wait(limit_s):
                text = f"{need.describe()}: no room within {limit_s:.0f} s"
                raise ResourceError(text, "See what holds the rest.")
            for index in range(need.count):
                place = PlacementGroupSchedulingStrategy(group, index)
                kind = ray.remote(Reducer).options(
                    num_cpus=need.resources.get("CPU", 0),
                    num_gpus=need.resources.get("GPU", 0),
                    scheduling_strategy=place,
                )
                actors.append(kind.remote())
            (address,) = _all([actors[0].address.remote()], deadline_s)
            left_s = deadline_s - time.monotonic()
            ranks = [
                actor.seconds.remote(rank, need.count, address, left_s)
                for rank, actor in enumerate(actors)
            ]
            answers = _all(ranks, deadline_s)
            table = ray.util.placement_group_table(group)
        finally:
            remove_placement_group(group)
    num_nodes = len(set(table["bundles_to_node_id"].values()))
    seconds, num_bytes = max(answers)
    return ReduceRate(need.count, num_nodes, num_bytes, seconds)


def _time_model(name: str, where: LabelSelector, limit_s: float) -> list[Finding]:
    nodes = [n for n in ray.nodes() if n["Alive"] and matches(n.get("Labels") or {}, where)]
    if not nodes:
        raise ResourceError(f"{name}: no node that its label_selector allows is running", "")
    there = NodeAffinitySchedulingStrategy(nodes[0]["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(time_model).options(scheduling_strategy=there)
    running = task.remote(name, limit_s)
    try:
        # It ends itself in time, and deletes what it has fetched.
        return [model_finding(name, node_name(nodes[0]), ray.get(running, timeout=limit_s + 30))]
    except KeyboardInterrupt:
        ray.cancel(running)
        raise


@contextmanager
def _ended() -> Iterator[list[Any]]:
    """A list for actors, which are killed at the end of the block."""
    actors: list[Any] = []
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def _all(references: list[Any], deadline_s: float) -> list[Any]:
    return ray.get(references, timeout=max(0.0, deadline_s - time.monotonic()))


def _groups(recipe: Recipe, waiting: Sequence[str]) -> dict[_Selector, tuple[Need, list[str]]]:
    """Trainings whose workers go to the same nodes are measured once, with the most workers."""
    groups: dict[_Selector, tuple[Need, list[str]]] = {}
    for stage in (name for name in TRAINING if name in waiting):
        workers = training_need(stage, getattr(recipe, stage))
        need = Need(stage, workers.need.resources, workers.at_hand, workers.need.label_selector)
        key = tuple(sorted(need.label_selector.items()))
        held, stages = groups.get(key, (need, []))
        groups[key] = (max(held, need, key=lambda one: one.count), [*stages, stage])
    return groups


def _sizes(
    recipe: Recipe, groups: dict[_Selector, tuple[Need, list[str]]]
) -> tuple[dict[_Selector, list[TrainingSize]], list[Finding]]:
    """What the trainings of each group move; "unknown" of those that cannot be planned."""
    sizes: dict[_Selector, list[TrainingSize]] = {}
    findings = []
    for selector, (_, stages) in groups.items():
        found = sizes.setdefault(selector, [])
        for stage in stages:
            try:
                found.append(training_size(recipe, stage))
            except CodePMPError as error:
                text = f"what {stage} writes and sums up: {error.problem}"
                findings.append(Finding("plan", "unknown", text, error.remedy))
    return sizes, findings


def _cost(
    run_dir: str,
    groups: dict[_Selector, tuple[Need, list[str]]],
    models: dict[str, LabelSelector],
    limit_s: float,
) -> str:
    num_nodes = sum(node["Alive"] for node in ray.nodes())
    each = NUM_FILES * FILE_BYTES / 1e9
    trainers = [need.describe() for need, _ in groups.values() if need.count > 1]
    parts = [
        f"{num_nodes * each:.1f} GB written to {run_dir} and read ({num_nodes} x {each:.2f} GB)",
        f"{' and then '.join(trainers)} held, for which nodes may be started" if trainers else "",
        f"fetched anew, each by one node: {', '.join(models)}" if models else "",
    ]
    what = "; ".join(filter(None, parts))
    return f"Measuring, for at most {limit_s:g} s: {what}. All of it is removed again."


def _unknown(subject: str, problem: str) -> Finding:
    return Finding(subject, "unknown", problem, "Raise --limit-s, or look at what is said above.")
