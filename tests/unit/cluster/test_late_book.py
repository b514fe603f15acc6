"""When the last shards of an execution are late, as a function of what the others took."""

from __future__ import annotations

import pytest

from codepmp_ray.cluster import shard_graph
from codepmp_ray.cluster.late_shards import Holder, Late, LateBook, LatePolicy
from codepmp_ray.cluster.placement import Offer
from codepmp_ray.config.engines import EngineConfig

POLICY = LatePolicy(factor=4.0, least_s=10.0)
SLOW, OTHER = Holder("slow"), Holder("other")


def book_where(usual_s: float, num_shards: int = 6, num_done: int = 4) -> LateBook:
    """Of pool "p", where `num_done` of the shards took `usual_s`, and engines start at once."""
    book = LateBook(num_shards, POLICY)
    for shard_id in range(num_done):
        book.started("p", shard_id, OTHER, 0.0, 0.0)
        book.finished("p", shard_id, usual_s)
    return book


def test_late_is_several_times_what_is_usual_and_not_before_the_least() -> None:
    book = book_where(5.0)
    book.started("p", 9, SLOW, 0.0, 100.0)
    assert book.late(120.0) == []
    assert book.late(120.1) == [Late(9, SLOW, 120.1 - 100.0, 5.0)]
    quick = book_where(1.0)
    quick.started("p", 9, SLOW, 0.0, 100.0)
    assert quick.late(110.0) == [] and quick.late(110.1) != []


def test_the_start_of_an_engine_counts_as_usual() -> None:
    """Beginning again costs one, and so does an engine that Ray starts anew."""
    book = book_where(5.0)
    book.started("p", 9, SLOW, 30.0, 100.0)
    assert book.late(239.0) == [] and book.late(241.0) != []


def test_one_shard_that_is_not_late_is_worth_waiting_for() -> None:
    book = book_where(5.0)
    book.started("p", 8, SLOW, 0.0, 0.0)
    book.started("p", 9, OTHER, 0.0, 90.0)
    assert book.late(105.0) == []
    book.finished("p", 9, 106.0)
    assert [late.shard_id for late in book.late(111.0)] == [8]


def test_nothing_is_late_while_shards_are_begun() -> None:
    """One more began, and is done already: engines are free, and whoever waits gets one."""
    book = book_where(5.0)
    book.started("p", 8, SLOW, 0.0, 0.0)
    book.started("p", 9, OTHER, 0.0, 100.0)
    book.finished("p", 9, 101.0)
    assert book.late(119.0) == [] and book.late(121.0) != []


def test_half_has_to_be_done_before_anything_is_late() -> None:
    book = book_where(5.0, num_shards=10)
    book.started("p", 8, SLOW, 0.0, 0.0)
    assert book.late(1e6) == []
    few = book_where(5.0, num_shards=4, num_done=3)
    few.started("p", 8, SLOW, 0.0, 0.0)
    assert few.late(1e6) == []
    second = book_where(5.0)
    second.started("q", 8, SLOW, 0.0, 0.0)  # no shard is through this pool yet
    assert second.late(1e6) == []


def test_an_engine_that_takes_a_shard_again_has_its_time_again() -> None:
    book = book_where(5.0)
    book.started("p", 8, SLOW, 0.0, 0.0)
    book.started("p", 8, OTHER, 0.0, 95.0)  # the first one died
    assert book.late(114.0) == []
    assert [late.holder for late in book.late(116.0)] == [OTHER]


def test_nothing_with_an_engine_is_nothing_late() -> None:
    assert book_where(5.0).late(1e6) == []


def test_patience_grows() -> None:
    assert POLICY.more_patient() == LatePolicy(factor=8.0, least_s=20.0)


def test_what_was_late_runs_on_other_nodes_if_they_can_hold_the_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [
        Offer(name, {"CPU": cpus}, {"ray.io/node-id": name, "kind": "strong"})
        for name, cpus in (("slow", 8.0), ("small", 1.0), ("large", 8.0))
    ]
    monkeypatch.setattr(shard_graph, "cluster_offers", lambda: nodes)
    engine = EngineConfig(
        kind="fake", model_name_or_path="m", num_cpus=4, label_selector={"kind": "strong"}
    )
    pools = [("strong", engine)]
    assert shard_graph._elsewhere(pools, frozenset()) == pools
    ((name, moved),) = shard_graph._elsewhere(pools, frozenset({"slow"}))
    assert name == "strong"
    assert moved.label_selector == {"kind": "strong", "ray.io/node-id": "!in(slow)"}
    assert shard_graph._elsewhere(pools, frozenset({"slow", "large"})) == pools
    monkeypatch.setattr(shard_graph, "cluster_offers", lambda: nodes[:2])
    assert shard_graph._elsewhere(pools, frozenset({"slow"})) == pools
