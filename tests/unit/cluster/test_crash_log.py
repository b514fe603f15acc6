"""The memory of which rows engines died over: per pool, and cheap while nothing has happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from codepmp_ray.cluster.crash_log import CrashLog, forget_crashes
from codepmp_ray.storage import LocalStore
from codepmp_ray.synthesis.isolation import Crash

HELD = [Crash(3, 0, 8, alone=False), Crash(7, 4, 8, alone=False)]


def test_a_pool_recalls_its_own_crashes_only(tmp_path: Path) -> None:
    strong, weak = (CrashLog(LocalStore(tmp_path), pool) for pool in ("strong", "weak"))
    strong.record(HELD)
    assert strong.of_shard(3) == HELD[:1]
    assert strong.of_shard(4) == []
    assert weak.of_shard(3) == [] and weak.num_deaths(set) == 0


def test_one_death_over_two_shards_counts_once_until_both_are_done(tmp_path: Path) -> None:
    log = CrashLog(LocalStore(tmp_path), "strong")
    log.record(HELD)
    log.record(HELD[:1])
    assert log.num_deaths(set) == 2
    assert log.num_deaths(lambda: {3}) == 1
    assert log.num_deaths(lambda: {3, 7}) == 0


def test_without_crashes_no_shard_is_listed(tmp_path: Path) -> None:
    def list_shards() -> set[int]:
        pytest.fail("a million shards were listed for nothing")

    assert CrashLog(LocalStore(tmp_path), "strong").num_deaths(list_shards) == 0


def test_forgetting_covers_every_pool(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for pool in ("strong", "weak"):
        CrashLog(store, pool).record(HELD)
    forget_crashes(store)
    assert not any(CrashLog(store, pool).of_shard(3) for pool in ("strong", "weak"))
