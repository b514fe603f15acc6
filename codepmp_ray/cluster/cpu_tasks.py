"""Tasks of stages without engines: how many at once, what each asks for, and running them.

On a cluster of fixed nodes such a task asks for no CPU: engines and trainers may hold all of them,
and what asks for the smallest share would then wait for ever. What bounds the tasks is their
number, that of the CPUs. Where nodes may come they ask for what they use, because the autoscaler
starts nodes for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from codepmp_ray.cluster.placement import Need, Offer, matching, require_fit
from codepmp_ray.cluster.preflight import check_selector, offers_to_come, running_offers
from codepmp_ray.config.base import LabelSelector
from codepmp_ray.errors import CodePMPError

T = TypeVar("T")
R = TypeVar("R")
_MAX_PARALLEL = 4_096  # in flight; a node type may have no limit
# Of a task whose process or node died. What was done is committed, so that another try is cheap; a
# file that kills whoever reads it ends the job at last.
_MAX_RETRIES = 20


@dataclass(frozen=True)
class CpuTasks:
    """`num_parallel` tasks at once, each with `num_cpus` (0: it asks for none) on nodes that
    `label_selector` allows."""

    num_parallel: int
    num_cpus: int = 0
    label_selector: LabelSelector = field(default_factory=dict)


def size_tasks(
    what: str,
    selector: LabelSelector,
    running: Sequence[Offer],
    to_come: Sequence[Offer],
    *,
    whole_nodes: bool = False,
) -> CpuTasks:
    """Tasks for all nodes that there are and that may come.

    One for each CPU; with `whole_nodes`, tasks that start processes for as many CPUs as they have,
    one for each node, or for as much of it as the smallest node has. Nodes with GPUs are not
    started for them unless the selector names them.

    Raises ResourceError where no node is or may be labelled so.
    """
    require_fit([Need(what, {"CPU": 1.0}, 1, selector)], [*running, *to_come])
    there = [offer for offer in matching(running, selector) if _cpus(offer)]
    coming = [
        offer
        for offer in matching(to_come, selector)
        if _cpus(offer) and offer.num_nodes and (selector or not offer.resources.get("GPU"))
    ]
    offers = [*there, *coming]
    each = min(map(_cpus, offers)) if whole_nodes else 1
    if not coming:
        count = len(there) if whole_nodes else sum(map(_cpus, there))
        return CpuTasks(max(1, count), 0, selector)
    count = sum(_cpus(offer) // each * offer.num_nodes for offer in offers)
    return CpuTasks(int(min(count, _MAX_PARALLEL)), each, selector)


def cpu_tasks(what: str, selector: LabelSelector, *, whole_nodes: bool = False) -> CpuTasks:
    """`size_tasks` for the connected cluster."""
    check_selector(what, selector)
    offers = running_offers(), offers_to_come()
    return size_tasks(what, selector, *offers, whole_nodes=whole_nodes)


def run_tasks(
    function: Callable[[T], R], items: Sequence[T], tasks: CpuTasks, memory: int | None = None
) -> Iterator[R]:
    """`function` of each item, in any order. `memory` are bytes that Ray sets aside for each.

    Raises what `function` raises, as it is where it is a CodePMPError.
    """
    options: dict[str, Any] = {"num_cpus": tasks.num_cpus, "max_retries": _MAX_RETRIES}
    options |= {"memory": memory} if memory else {}
    options |= {"label_selector": dict(tasks.label_selector)} if tasks.label_selector else {}
    remote = ray.remote(scheduling_strategy="SPREAD", **options)(_call)
    shared, waiting = ray.put(function), []
    left = iter(items)
    try:
        while True:
            while len(waiting) < tasks.num_parallel and (item := next(left, None)) is not None:
                waiting.append(remote.remote(shared, item))
            if not waiting:
                return
            done, waiting = ray.wait(waiting, num_returns=1)
            for reference in done:
                yield ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, CodePMPError):
            raise error.cause from error
        raise
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


def _cpus(offer: Offer) -> int:
    return int(offer.resources.get("CPU", 0.0))
