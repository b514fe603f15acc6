"""Stages that stop by themselves: what GPUs have cost, and how much was rejected."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from codepmp_ray.cluster import device_time as module
from codepmp_ray.cluster import limits
from codepmp_ray.cluster.device_time import DeviceTime, cost_of, device_time
from codepmp_ray.cluster.limits import PriceLimit, RejectFuse
from codepmp_ray.cluster.training import run_stoppable
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import ConfigError, LimitReached
from codepmp_ray.json_records import record_bytes
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.stopping import StopRequests
from tests.processes import wait_until


def stage_of(run_dir: Path, name: str = "synthesis", **planning: Any) -> Stage:
    return open_stage(parse_recipe({"run_dir": str(run_dir), "planning": planning}, "test"), name)


def held(stage: Stage, attempt: str, gpus: float, began_s: float, last_s: float) -> None:
    record = {"num_gpus": gpus, "began_s": began_s, "last_s": last_s}
    stage.store.put(f"_devices/{attempt}/{began_s:g}-{gpus:g}.json", record_bytes(record))


def test_a_holder_counts_up_to_its_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    stage = stage_of(tmp_path, price_per_gpu_hour=3600)
    DeviceTime(stage.store, "a", 2)  # never stopped, as one that is killed
    wait_until(lambda: cost_of(stage)["gpu_seconds"] > 0, lambda: str(cost_of(stage)))
    with device_time(stage.store, "b", 0):
        assert stage.store.list("_devices") == ["a"]  # without a GPU there is nothing to say
    began_s = time.monotonic()
    with device_time(stage.store, "c", 4):
        time.sleep(0.2)
    took_s = time.monotonic() - began_s
    last = cost_of(stage)["attempts"][-1]
    assert 4 * 0.2 - 0.1 <= last["gpu_seconds"] <= 4 * took_s + 0.1
    assert last["price"] == pytest.approx(last["gpu_seconds"], abs=0.06)


def test_cost_is_summed_over_holders_and_attempts(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, price_per_gpu_hour=2)
    held(stage, "second", 1, 5000, 5900)
    held(stage, "first", 2, 1000, 1900)
    held(stage, "first", 4, 1100, 1200)
    assert cost_of(stage) == {
        "gpu_seconds": 3100.0,
        "price": pytest.approx(3100 / 1800, abs=1e-4),
        "attempts": [
            {"began": "1970-01-01T00:16:40Z", "gpu_seconds": 2200.0, "price": 1.2222},
            {"began": "1970-01-01T01:23:20Z", "gpu_seconds": 900.0, "price": 0.5},
        ],
    }
    unpriced = cost_of(stage_of(tmp_path))
    assert unpriced["gpu_seconds"] == 3100.0 and unpriced["price"] is None


def test_the_price_is_that_of_all_stages_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LOOK_INTERVAL_S", 0.0)
    planning = {"price_per_gpu_hour": 1.0, "max_price": 3.0}
    stage = stage_of(tmp_path, **planning)
    limit = PriceLimit(stage)
    held(stage, "a", 1, 0, 3600)
    limit()
    held(stage_of(tmp_path, "pretraining", **planning), "a", 1, 0, 2 * 3600)
    with pytest.raises(LimitReached, match=r"have cost 3\.00, and planning\.max_price is 3\.00"):
        limit()
    PriceLimit(stage_of(tmp_path, price_per_gpu_hour=1.0))()


def test_a_limit_without_a_price_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs price_per_gpu_hour"):
        stage_of(tmp_path, max_price=3)


def test_a_training_at_its_limit_is_asked_for_a_checkpoint(tmp_path: Path) -> None:
    store, asked = LocalStore(tmp_path), threading.Event()

    def fit() -> None:
        wait_until(StopRequests(store).is_there, lambda: "not asked")
        asked.set()

    def watch() -> None:
        raise LimitReached("It costs too much.")

    with pytest.raises(LimitReached):
        run_stoppable(fit, store, 60, watch)
    assert asked.is_set()


def reject(ledger: ShardLedger, shard: int, num_pairs: int, reasons: list[str]) -> tuple[int, ...]:
    rows = [
        {"row_id": f"{shard}-{i}", "reason": reason, "detail": f"why {i}"}
        for i, reason in enumerate(reasons)
    ]
    pairs = pa.table({"x": list(range(num_pairs))})
    tables = {"pairs": pairs, "rejected": table_from_rows(rows, REJECTED)}
    ledger.commit(shard, num_pairs + len(rows), tables)
    return shard, num_pairs + len(rows), len(rows)


def test_the_fuse_burns_on_the_last_shards_and_shows_three_rows(tmp_path: Path) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    fuse = RejectFuse(ledger, 0.9, num_shards=2, min_rows=20)
    fuse.committed(*reject(ledger, 0, 0, ["no_code"] * 10))  # too few rows to say so
    fuse.committed(*reject(ledger, 1, 10, []))
    fuse.committed(*reject(ledger, 2, 1, ["no_code"] * 9))
    with pytest.raises(LimitReached) as caught:
        fuse.committed(*reject(ledger, 3, 0, ["engine_error", *["no_code"] * 9]))
    text = str(caught.value)
    assert "19 of the last 20 rows were rejected" in text and "max_reject_share=0.9" in text
    assert "3-1: no_code (why 1)." in text and "3-0: engine_error (why 0)." in text
    assert text.count("(why ") == 3


@pytest.mark.parametrize(("share", "burns"), [(1.0, False), (0.95, True)])
def test_everything_rejected_is_no_success_unless_somebody_says_so(
    tmp_path: Path, share: float, burns: bool
) -> None:
    ledger = ShardLedger(LocalStore(tmp_path))
    fuse, shard = RejectFuse(ledger, share, min_rows=20), reject(ledger, 0, 0, ["no_code"] * 20)
    if burns:
        with pytest.raises(LimitReached):
            fuse.committed(*shard)
    else:
        fuse.committed(*shard)
