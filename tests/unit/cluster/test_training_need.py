"""How many workers a training asks for, on clusters of several sizes; and the memory of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from codepmp_ray.cluster import preflight, workers
from codepmp_ray.cluster.gpu_kinds import Gpu, least_gpu
from codepmp_ray.cluster.node_probe import NodeReport
from codepmp_ray.cluster.placement import NODE_ID_LABEL, Offer, offers_of_node_types
from codepmp_ray.cluster.workers import Workers, scaling_of, training_need
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ResourceError

ROOT = Path(__file__).resolve().parents[3]
LABEL = "ray.io/accelerator-type"


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> list[Offer]:
    """The cluster: filled by each test."""
    found: list[Offer] = []
    monkeypatch.setattr(preflight, "cluster_offers", lambda: found)
    return found


def asked(**settings: Any) -> Workers:
    return training_need("pretraining", TrainingConfig(**settings))


@pytest.mark.parametrize(
    ("gpus", "settings", "text"),
    [
        (8, {"num_workers": 8}, "8 x (1 CPU, 1 GPU)"),
        (1, {"num_workers": 8}, "8 x (1 CPU, 1 GPU)"),
        (
            4,
            {"num_workers": 8, "min_workers": 2},
            "2 x (1 CPU, 1 GPU), up to 8: this cluster holds 4 instead of 8",
        ),
        (
            1,
            {"num_workers": 2, "min_workers": 1},
            "1 x (1 CPU, 1 GPU), up to 2: this cluster holds 1 instead of 2",
        ),
        (8, {"num_workers": 8, "min_workers": 2}, "2 x (1 CPU, 1 GPU), up to 8"),
        (8, {"num_workers": 2, "use_gpu": False}, "2 x (1 CPU)"),
        (0, {"num_workers": 2}, "2 x (1 CPU)"),
    ],
)
def test_the_number_of_workers_is_a_demand_unless_a_smaller_one_is_allowed(
    offers: list[Offer], gpus: int, settings: dict[str, Any], text: str
) -> None:
    offers.append(Offer("node", {"CPU": 16.0, "GPU": float(gpus)}))
    assert asked(**settings).describe() == text


def test_what_the_cluster_can_never_have_is_refused_with_the_way_to_ask_for_less(
    offers: list[Offer],
) -> None:
    offers.append(Offer("node", {"CPU": 16.0, "GPU": 1.0}))
    with pytest.raises(ResourceError, match=r"needs 8 GPU, but the cluster has 1") as caught:
        scaling_of("pretraining", TrainingConfig(num_workers=8))
    assert "Set pretraining.min_workers" in caught.value.remedy


@pytest.mark.parametrize(
    ("is_own", "min_workers", "expected"),
    [(True, 1, 3), (False, 1, (1, 4)), (False, 4, 4), (False, None, 4)],
)
def test_workers_come_and_go_where_nodes_may(
    offers: list[Offer], monkeypatch: pytest.MonkeyPatch,
    is_own: bool, min_workers: int | None, expected: int | tuple[int, int],
) -> None:  # fmt: skip
    monkeypatch.setattr(workers, "owns_cluster", lambda: is_own)
    config = TrainingConfig(num_workers=4, min_workers=min_workers)
    offers.append(Offer("node", {"CPU": 3.0 if min_workers == 1 else 4.0}))
    assert scaling_of("pretraining", config)[0].num_workers == expected


def test_no_recipe_shrinks_in_silence_on_the_cluster_file(offers: list[Offer]) -> None:
    document = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    offers += offers_of_node_types(document, "cluster.yaml")
    arguments = (ROOT / "deploy/placement.args").read_text(encoding="utf-8").split()
    for file in sorted((ROOT / "jobs/recipes").glob("qwen2-*.yaml")):
        recipe = load_recipe(file, arguments)
        for name in ("pretraining", "finetuning"):
            config = getattr(recipe, name)
            workers = training_need(name, config)
            assert workers.need.count == (config.min_workers or config.num_workers), file.name


def test_the_smallest_gpu_is_planned_for() -> None:
    named = [
        Offer("a", {"GPU": 8.0, "accelerator_type:A100": 1.0}),
        Offer("b", {"GPU": 1.0}, {LABEL: "L4", "role": "weak"}, 4),
        Offer("cpu", {"CPU": 8.0}),
    ]
    assert least_gpu(named, {}) == Gpu("L4", 24e9)
    assert least_gpu(named, {"role": "!weak"}) == Gpu("A100", 40e9)
    assert least_gpu(named[2:], {}) is None


def test_of_a_gpu_that_nobody_names_nothing_is_planned() -> None:
    offers = [Offer("a", {"GPU": 8.0}, {LABEL: "H100"}), Offer("b", {"GPU": 1.0})]
    assert least_gpu(offers, {}) is None
    assert least_gpu([*offers[:1], Offer("b", {"GPU": 1.0}, {}, 0)], {}) == Gpu("H100", 80e9)


def test_what_a_running_node_measured_comes_before_names() -> None:
    node = Offer("10.0.0.1", {"GPU": 1.0}, {LABEL: "A100", NODE_ID_LABEL: "abcdef012345"})
    reports = [
        NodeReport("10.0.0.2-fedcba", gpu=("NVIDIA L4", 24e9)),
        NodeReport("10.0.0.1-abcdef", gpu=("NVIDIA A100-SXM4-80GB", 85e9)),
    ]
    assert least_gpu([node], {}, reports) == Gpu("NVIDIA A100-SXM4-80GB", 85e9)
    assert least_gpu([node], {}, reports[:1]) == Gpu("A100", 40e9)
