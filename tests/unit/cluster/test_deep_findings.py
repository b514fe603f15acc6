"""What measured rates mean for a recipe, and what a node does to measure them."""

from __future__ import annotations

from pathlib import Path

import pytest

from codepmp_ray.cluster import deep_probe
from codepmp_ray.cluster.deep_findings import (
    ReduceRate,
    StorageRates,
    TrainingSize,
    reduce_finding,
    storage_findings,
)
from codepmp_ray.cluster.deep_probe import Reducer, StorageWorker, fetch_and_read, time_model
from codepmp_ray.cluster.stage_checks import training_size
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import ModelError
from codepmp_ray.storage import LocalStore
from tests.tiny_models import save_tiny_base_model

SIZE = TrainingSize("pretraining", 4e9, 12e9, stop_timeout_s=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_tiny_base_model(tmp_path_factory.mktemp("model") / "base"))


@pytest.mark.parametrize(("write", "state"), [(0.1e9, "warn"), (0.2e9, "warn"), (0.21e9, "ok")])
def test_a_checkpoint_has_to_be_written_in_the_time_to_stop(write: float, state: str) -> None:
    """12 GB in 60 s are 0.2 GB/s."""
    rates, checkpoint = storage_findings(StorageRates(3, write, 1e9), [SIZE])
    assert rates.state == "ok" and f"3 nodes at once write {write / 1e6:.0f} MB/s" in rates.detail
    assert checkpoint.state == state and f"takes {12e9 / write:.1f} s" in checkpoint.detail
    assert ("pretraining.stop_timeout_s above" in checkpoint.remedy) == (state == "warn")


@pytest.mark.parametrize("num_workers", [2, 8])
def test_bus_bandwidth_does_not_depend_on_the_number_of_ranks(num_workers: int) -> None:
    """On links of 1 GB/s a ring takes 2 (n - 1) / n s for 1 GB; so do 4 GB of gradients."""
    seconds = 2 * (num_workers - 1) / num_workers
    rate = ReduceRate(num_workers, 2, 10**9, seconds)
    assert rate.bus == pytest.approx(1e9)
    assert f"{4 * seconds:.2f} s a step" in reduce_finding(rate, [SIZE]).detail


def test_a_training_s_checkpoint_holds_weights_and_both_moments(
    tmp_path: Path, model: Path
) -> None:
    """Also with parameters in host memory, of which the plan of a GPU knows nothing."""
    for offload in (False, True):
        section = {"model_name_or_path": str(model), "cpu_offload": offload, "num_workers": 4}
        recipe = parse_recipe({"run_dir": str(tmp_path), "pretraining": section}, "test")
        size = training_size(recipe, "pretraining")
        assert size.gradient_bytes > 0 and size.stop_timeout_s == 60
        assert size.checkpoint_bytes == pytest.approx(3 * size.gradient_bytes, rel=0.01)


def test_a_node_writes_its_files_and_reads_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep_probe, "FILE_BYTES", 1000)
    first, second = StorageWorker(str(tmp_path)), StorageWorker(str(tmp_path))
    assert first.write(0) > 0 and second.write(1) > 0
    sizes = {name: fact.num_bytes for name, fact in LocalStore(tmp_path).files("").items()}
    assert sizes == {f"{node}-{n}": 1000 for node in (0, 1) for n in range(deep_probe.NUM_FILES)}
    assert first.read(1) > 0
    with pytest.raises(OSError):
        first.read(2)


def test_a_model_is_fetched_into_a_cache_that_goes(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path))
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert 0 < fetch_and_read(str(model)).num_bytes <= weights  # files have headers too
    with pytest.raises(ModelError, match="does not exist"):
        time_model(str(tmp_path / "nothing"), 240)
    with pytest.raises(ModelError, match=r"were too short; 0\.0 GB had come"):
        time_model(str(model), 0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ranks_meet_and_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank in this process: what the others do is the same."""
    monkeypatch.setitem(deep_probe._REDUCED_BYTES, "cpu", 4000)
    rank = Reducer()
    seconds, num_bytes = rank.seconds(0, 1, rank.address(), 240)
    assert 0 < seconds < 240 and num_bytes == 4000
