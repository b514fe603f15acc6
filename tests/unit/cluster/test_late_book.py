"""When a shard is late, as a function of what the others took."""

from __future__ import annotations

from codepmp_ray.cluster.late_shards import Late, LateBook, LatePolicy, num_copies

POLICY = LatePolicy(factor=4.0, least_s=10.0, num_known=3)


def book_where(usual_s: float, num_done: int = 3) -> LateBook:
    """Of pool "p", where `num_done` shards took about `usual_s`."""
    book = LateBook(["p", "q"], POLICY)
    for shard_id in range(num_done):
        book.started("p", shard_id, 0.0)
        book.finished("p", shard_id, usual_s + shard_id - num_done // 2)
    return book


def test_late_is_several_times_what_is_usual_and_not_before_the_least() -> None:
    book = book_where(5.0)
    book.started("p", 9, 100.0)
    assert book.take(120.0) is None
    assert book.take(120.1) == Late(9, "p", 120.1 - 100.0, 5.0)
    quick = book_where(1.0)
    quick.started("p", 9, 100.0)
    assert quick.take(110.0) is None and quick.take(110.1) is not None


def test_nothing_is_late_while_nobody_knows_what_is_usual() -> None:
    book = book_where(5.0, num_done=2)
    book.started("p", 9, 0.0)
    assert book.take(1e6) is None
    other = book_where(5.0)
    other.started("q", 9, 0.0)
    assert other.take(1e6) is None


def test_a_shard_comes_again_only_after_as_long_again() -> None:
    book = book_where(5.0)
    book.started("p", 9, 0.0)
    assert book.take(30.0) is not None
    assert book.take(49.0) is None
    assert book.take(51.0) is not None


def test_the_latest_comes_first() -> None:
    book = book_where(5.0)
    book.started("p", 8, 10.0)
    book.started("p", 9, 0.0)
    assert [late.shard_id for late in (book.take(100.0), book.take(100.0)) if late] == [9, 8]


def test_waiting_in_a_queue_is_late_only_when_others_passed_by() -> None:
    book = book_where(5.0)
    for shard_id in (7, 8, 9):
        book.read(shard_id)
    assert book.take(1_000.0) is None  # a long queue
    book.started("p", 8, 1_000.0)
    book.finished("p", 8, 1_005.0)
    assert book.take(1_006.0) is None  # 7 is overtaken, 9 is not
    late = book.take(1_026.1)
    assert late is not None and (late.shard_id, late.pool) == (7, "p")
    book.read(7)  # its copy, behind all others
    assert book.take(2_000.0) is None


def test_what_one_pool_is_done_with_stands_in_the_queue_of_the_next() -> None:
    book = book_where(5.0)
    for shard_id in (10, 11, 12, 13, 14):
        book.started("p", shard_id, 0.0)
        book.finished("p", shard_id, 5.0)
    for shard_id in range(3):
        book.committed(shard_id)
    for shard_id in (11, 12, 13, 14):  # 10 stands before an engine that is stuck
        book.started("q", shard_id, 10.0)
        book.finished("q", shard_id, 15.0)
    assert book.take(16.0) is None
    late = book.take(37.0)
    assert late is not None and (late.shard_id, late.pool) == (10, "q")


def test_what_is_done_or_left_its_engine_is_not_late() -> None:
    book = book_where(5.0)
    for shard_id in (6, 7, 8, 9):
        book.started("p", shard_id, 0.0)
    book.finished("p", 6, 90.0)
    book.committed(7)  # by another engine: the first is still at it
    book.forgotten("p", [8, 12])
    book.started("p", 9, 95.0)  # its engine had died
    assert book.take(100.0) is None


def test_a_tenth_may_be_made_again_and_at_least_four() -> None:
    assert [num_copies(n) for n in (1, 3, 8, 40, 2_000)] == [1, 3, 4, 4, 200]
