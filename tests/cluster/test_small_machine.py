"""A laptop of two processors: two models start there, and what cannot start says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from codepmp_ray import progress
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import open_stage
from tests.cluster.conftest import _shared
from tests.cluster.test_synthesis_job import recipe_for, snippet_ids, write_corpus
from tests.processes import wait_until

pytestmark = pytest.mark.rehearsal


@pytest.fixture(scope="module")
def two_processors() -> Iterator[None]:
    _shared.close()
    ray.init(num_cpus=2, num_gpus=2, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def two_engines(run_dir: Path) -> Recipe:
    """Each takes a whole processor, as engines do unless they are told."""
    recipe = recipe_for(run_dir)
    engines = {
        role: getattr(recipe.engines, role).model_copy(update={"num_cpus": 1.0})
        for role in ("strong", "weak")
    }
    return recipe.model_copy(update={"engines": recipe.engines.model_copy(update=engines)})


def test_two_models_on_two_processors_finish(two_processors, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = two_engines(tmp_path)
    names = write_corpus(recipe)
    assert synthesize(recipe)["num_pairs"] == len(names)
    assert sorted(snippet_ids(recipe)) == sorted(names)


def test_the_time_that_engines_hold_gpus_is_counted(
    two_processors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs are numbers here, which Ray does not look into."""
    from codepmp_ray.cluster import shard_graph
    from codepmp_ray.cluster.synthesis import synthesize

    monkeypatch.setattr(shard_graph, "engine_gpus", lambda engine: 0.5)
    recipe = recipe_for(tmp_path, latency_s=2.0)
    planning = recipe.planning.model_copy(update={"price_per_gpu_hour": 3600.0})
    recipe = recipe.model_copy(update={"planning": planning})
    write_corpus(recipe)
    began_s = time.monotonic()
    cost = synthesize(recipe)["cost"]
    took_s = time.monotonic() - began_s
    # Two engines of half a GPU; rows take six seconds through three hops.
    assert 0.5 < cost["gpu_seconds"] < took_s
    assert cost["price"] == pytest.approx(cost["gpu_seconds"], abs=0.06)
    assert [attempt["gpu_seconds"] for attempt in cost["attempts"]] == [cost["gpu_seconds"]]


def test_a_job_that_waits_says_for_what(
    two_processors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    @ray.remote(num_cpus=1)
    class Holder:
        def hold(self) -> None: ...

    monkeypatch.setattr(progress, "_LOOK_S", 1.0)
    recipe, holder = two_engines(tmp_path), Holder.remote()
    ray.get(holder.hold.remote())
    names, shown = write_corpus(recipe), ""
    job = threading.Thread(target=synthesize, args=[recipe], daemon=True)
    job.start()

    def says_so() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return "waiting for" in shown

    wait_until(says_so, lambda: shown)
    line = next(line for line in shown.splitlines() if "waiting for" in line)
    assert line.startswith("synthesis: 0/5 shards") and "1 x (1 CPU)" in line
    assert "free: 0 CPU" in line and "lower num_cpus" in line
    ray.kill(holder)
    job.join(120)
    assert open_stage(recipe, "synthesis").summary()["num_pairs"] == len(names)
