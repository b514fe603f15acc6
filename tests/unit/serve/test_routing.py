"""Prompts stay with their replica, move little when replicas change, and spread under load."""

from __future__ import annotations

from collections import Counter

from codepmp_ray.serve.routing import key_of, ranked

NAMES = [f"replica-{number}" for number in range(4)]
IDLE = dict.fromkeys(NAMES, 0)


def test_a_prompt_has_one_replica_and_prompts_are_spread() -> None:
    first = [ranked(key_of(f"prompt {i}"), IDLE, 100)[0] for i in range(2_000)]
    again = [ranked(key_of(f"prompt {i}"), dict(reversed(IDLE.items())), 100)[0] for i in range(50)]
    assert first[:50] == again
    assert all(400 < count < 600 for count in Counter(first).values())


def test_a_replica_that_goes_moves_its_own_prompts_only() -> None:
    left = dict.fromkeys(NAMES[1:], 0)
    for number in range(500):
        key = key_of(number)
        before, after = ranked(key, IDLE, 1), ranked(key, left, 1)
        assert after == [name for name in before if name != NAMES[0]]


def test_who_is_too_busy_is_passed_over_but_kept_as_a_last_resort() -> None:
    key = key_of("popular")
    order = ranked(key, IDLE, 100)
    busy = {**IDLE, order[0]: 1_000}
    found = ranked(key, busy, 100)
    assert found == [*order[1:], order[0]]
    # A call larger than all the others together is taken by somebody.
    assert len(ranked(key, busy, 1_000_000)) == 4


def test_a_popular_prompt_fills_replicas_evenly() -> None:
    key, loads = key_of("popular"), dict(IDLE)
    for _ in range(400):
        loads[ranked(key, loads, 10)[0]] += 10
    assert max(loads.values()) <= 1.3 * sum(loads.values()) / len(loads)


def test_without_replicas_there_is_nothing_to_choose() -> None:
    assert ranked(b"", {}, 5) == []
    assert ranked(b"", {"only": 10**9}, 5) == ["only"]
