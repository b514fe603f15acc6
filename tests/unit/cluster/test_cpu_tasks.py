"""How many tasks of a stage without engines run, on nodes that are there and that may come."""

from __future__ import annotations

import math

import pytest

from codepmp_ray.cluster.cpu_tasks import CpuTasks, size_tasks
from codepmp_ray.cluster.placement import Offer
from codepmp_ray.errors import ResourceError

HEAD = Offer("head", {"CPU": 4.0})
CPU = Offer("cpu", {"CPU": 16.0}, {"role": "cpu"}, 4)
TRAINER = Offer("trainer", {"CPU": 96.0, "GPU": 8.0}, {"role": "trainer"}, 4)
SELECTOR = {"role": "cpu"}


@pytest.mark.parametrize(
    ("to_come", "selector", "tasks", "of_nodes"),
    [
        # Engines may hold the CPUs of fixed nodes: nothing is asked for.
        ([], {}, CpuTasks(4), CpuTasks(1)),
        ([CPU], {}, CpuTasks(68, 1), CpuTasks(17, 4)),
        ([CPU], SELECTOR, CpuTasks(64, 1, SELECTOR), CpuTasks(4, 16, SELECTOR)),
        # A node with GPUs is no place that is bought for this, unless somebody says so.
        ([TRAINER], {}, CpuTasks(4), CpuTasks(1)),
        ([CPU, TRAINER], {}, CpuTasks(68, 1), CpuTasks(17, 4)),
        (
            [TRAINER],
            {"role": "trainer"},
            CpuTasks(384, 1, {"role": "trainer"}),
            CpuTasks(4, 96, {"role": "trainer"}),
        ),
    ],
)
def test_tasks_are_as_many_as_nodes_may_be(
    to_come: list[Offer], selector: dict[str, str], tasks: CpuTasks, of_nodes: CpuTasks
) -> None:
    assert size_tasks("Corpus", selector, [HEAD], to_come) == tasks
    assert size_tasks("Grading", selector, [HEAD], to_come, whole_nodes=True) == of_nodes


def test_a_type_without_a_limit_is_bounded() -> None:
    endless = Offer("cpu", {"CPU": 8.0}, {}, math.inf)
    assert size_tasks("Corpus", {}, [HEAD], [endless]).num_parallel == 4096


def test_a_head_without_cpus_runs_none() -> None:
    assert size_tasks("Corpus", {}, [Offer("head", {"CPU": 0.0})], [CPU]) == CpuTasks(64, 1)


def test_a_label_that_no_node_will_have_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"Corpus: no node or node type is labelled role=gpu"):
        size_tasks("Corpus", {"role": "gpu"}, [HEAD], [CPU])
