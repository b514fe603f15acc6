"""Turns by tokens: order, fairness, refusals, and what abandoned calls leave behind."""

from __future__ import annotations

import asyncio
import random
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from codepmp_ray.errors import DeadlineError
from codepmp_ray.scoring.best_of_n import BestOfN, ScoredCandidate, ScoringRequest
from codepmp_ray.scoring.stages import StagesAsked
from codepmp_ray.serve.admission import Admission, TokenEstimate
from codepmp_ray.serve.errors import ApiError


class Callers:
    """Calls that hold their turn until they are let go; `started` has their order."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.started: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(
        self, name: str, tokens: int, timeout_s: float | None = None, num_bytes: int = 0
    ) -> None:
        """`name` is the caller and a number: "a1"."""
        self._ends[name] = asyncio.Event()

        async def hold() -> None:
            async with self.admission.admit(name[0], tokens, timeout_s, num_bytes):
                self.started.append(name)
                await self._ends[name].wait()

        self.tasks[name] = asyncio.create_task(hold())
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()

    async def end_all(self) -> None:
        """Each in the order in which it got its turn."""
        for number in range(len(self.tasks)):
            await self.end(self.started[number])
        await asyncio.gather(*self.tasks.values())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(
    test: Callable[[Callers], Awaitable[None]],
    max_calls: int = 100,
    max_tokens: int = 100,
    max_waiting_bytes: int = 10_000,
) -> Admission:
    """Run `test`; afterwards nothing may be left."""
    admission = Admission(max_calls, max_tokens, max_waiting_bytes)
    asyncio.run(test(Callers(admission)))
    assert (admission.num_running, admission.num_running_tokens) == (0, 0)
    assert admission.num_waiting_tokens == 0
    return admission


def test_tokens_count_not_calls() -> None:
    async def test(callers: Callers) -> None:
        for name, tokens in (("a1", 60), ("a2", 60), ("a3", 10)):
            await callers.call(name, tokens)
        assert callers.started == ["a1"]  # a2 does not fit, and a3 does not overtake it
        await callers.end("a1")
        assert callers.started == ["a1", "a2", "a3"]
        await callers.end_all()

    run(test)


def test_a_call_over_the_bound_runs_alone() -> None:
    async def test(callers: Callers) -> None:
        await callers.call("a1", 10)
        await callers.call("a2", 5_000)
        assert callers.started == ["a1"]
        await callers.end("a1")
        await callers.call("b1", 1)
        assert callers.started == ["a1", "a2"]
        await callers.end_all()

    run(test)


def test_calls_at_once_are_bounded_too() -> None:
    async def test(callers: Callers) -> None:
        for name in ("a1", "a2", "a3"):
            await callers.call(name, 1)
        assert callers.started == ["a1", "a2"]
        await callers.end_all()

    run(test, max_calls=2)


def test_a_flood_of_one_caller_delays_no_other() -> None:
    async def test(callers: Callers) -> None:
        for number in range(8):
            await callers.call(f"a{number}", 100)
        await callers.call("b0", 100)
        await callers.call("b1", 100)
        for _ in range(4):
            await callers.end(callers.started[-1])
        # Whoever waits longest with the least: a and b take turns although a came first.
        assert sorted(name[0] for name in callers.started[1:]) == ["a", "a", "b", "b"]
        await callers.end_all()

    run(test)


def test_who_comes_late_neither_catches_up_nor_stands_behind() -> None:
    async def test(callers: Callers) -> None:
        for number in range(10):
            await callers.call(f"a{number}", 100)
        for _ in range(4):
            await callers.end(callers.started[-1])
        for number in range(6):
            await callers.call(f"b{number}", 100)
        seen = len(callers.started)
        for _ in range(4):
            await callers.end(callers.started[-1])
        assert sorted(name[0] for name in callers.started[seen:]) == ["a", "a", "b", "b"]
        await callers.end_all()

    run(test)


def test_many_small_calls_get_as_many_tokens_as_few_large_ones() -> None:
    async def test(callers: Callers) -> None:
        await callers.call("x0", 100)
        for number in range(4):
            await callers.call(f"a{number}", 80)
        for number in range(16):
            await callers.call(f"b{number}", 20)
        await callers.end("x0")
        given = {"a": 0, "b": 0}
        sizes = {"a": 80, "b": 20}
        seen = 1
        while min(given.values()) < 240:
            for name in callers.started[seen:]:
                given[name[0]] += sizes[name[0]]
            seen = len(callers.started)
            assert abs(given["a"] - given["b"]) <= 100
            await callers.end(callers.started[seen - 1])
            for name in callers.started[:seen]:
                await callers.end(name)
        await callers.end_all()

    run(test)


def test_a_full_waiting_room_is_429_for_who_fills_it_only() -> None:
    async def test(callers: Callers) -> None:
        await callers.call("a1", 100)
        await callers.call("a2", 150, num_bytes=150)
        with pytest.raises(ApiError) as refused:
            async with callers.admission.admit("a", 1, None, 51):
                pass
        assert refused.value.status == 429 and (refused.value.retry_after_s or 0) >= 1
        assert "max_waiting_bytes=200" in refused.value.message
        await callers.call("a3", 1, num_bytes=50)
        await callers.call("b1", 9_000, num_bytes=9_000)  # nothing of theirs waits
        with pytest.raises(ApiError):  # and now the room is for two
            async with callers.admission.admit("a", 1, None, 1):
                pass
        await callers.end_all()
        assert set(callers.started) == {"a1", "a2", "a3", "b1"}

    run(test, max_waiting_bytes=200)


def test_however_many_tokens_wait_nobody_is_refused_for_them() -> None:
    """A step of a trainer at once, and beside it a call that is larger than all limits."""

    async def test(callers: Callers) -> None:
        for number in range(300):
            await callers.call(f"a{number}", 1_000, num_bytes=10)
        await callers.call("b0", 10**9, num_bytes=10**9)
        await callers.end_all()
        assert len(callers.started) == 301

    run(test, max_waiting_bytes=10_000)


def test_who_leaves_while_waiting_makes_room() -> None:
    async def test(callers: Callers) -> None:
        await callers.call("a1", 100)
        await callers.call("a2", 100)
        await callers.call("b1", 50)
        callers.tasks.pop("a2").cancel()
        await settle()
        await callers.end("a1")
        assert callers.started == ["a1", "b1"]
        await callers.end_all()

    run(test)


def test_a_turn_given_at_the_moment_of_leaving_is_given_on() -> None:
    async def test(callers: Callers) -> None:
        await callers.call("a1", 100)
        await callers.call("a2", 100)
        await callers.call("b1", 100)
        task = callers.tasks.pop("a2")
        callers._ends["a1"].set()
        await asyncio.sleep(0)  # a1 ends: a2 has its turn and has not noticed
        task.cancel()
        await settle()
        assert "b1" in callers.started
        await callers.end_all()

    run(test)


@pytest.mark.parametrize("seed", range(40))
def test_whoever_leaves_at_whatever_moment_takes_nothing_along(seed: int) -> None:
    """Random calls of three callers; some leave in the same tick, some time out."""
    choice = random.Random(seed)

    async def test() -> None:
        admission = Admission(3, 600, 100_000)

        async def call(name: str) -> None:
            timeout_s = choice.choice([None, None, 0.0, 0.001])
            async with admission.admit(name, choice.randint(10, 300), timeout_s, 100):
                await asyncio.sleep(choice.choice([0, 0, 0.001]))

        tasks = [asyncio.create_task(call(choice.choice("abc"))) for _ in range(40)]
        for _ in range(8):
            await asyncio.sleep(0)
            for task in choice.sample(tasks, 8):
                task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert {type(item) for item in ended} <= {type(None), CancelledError, DeadlineError}
        assert (admission.num_running, admission.num_running_tokens) == (0, 0)
        assert admission.num_waiting_tokens == 0 and admission._callers == {}
        async with asyncio.timeout(5), admission.admit("d", 600):
            pass

    asyncio.run(test())


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("num_ticks", range(6))
def test_all_who_wait_leave_at_the_moment_of_a_turn(num_ticks: int, at_once: bool) -> None:
    async def test(callers: Callers) -> None:
        for number in range(10):
            await callers.call(f"a{number}", 100)
        await callers.call("b0", 100)
        callers._ends["a0"].set()
        for _ in range(num_ticks):
            await asyncio.sleep(0)
        for number in range(1, 10):
            callers.tasks.pop(f"a{number}").cancel()
            if not at_once:
                await asyncio.sleep(0)
        await settle()
        assert "b0" in callers.started
        callers._ends["b0"].set()
        await asyncio.gather(*callers.tasks.values())

    run(test)


def test_the_limits_are_of_each_replica_that_is_there_now() -> None:
    async def test() -> None:
        num = 1
        callers = Callers(Admission(100, 100, 100, num_replicas=lambda: num))
        for name in ("a1", "a2"):
            await callers.call(name, 80)
        assert callers.started == ["a1"]
        num = 3  # two replicas came
        await callers.call("a3", 80)
        await callers.call("a4", 80)
        await callers.end("a1")
        assert callers.started == ["a1", "a2", "a3", "a4"]
        num = 1  # and went: what they had goes on, nothing new comes in
        await callers.call("a5", 10)
        await callers.end("a2")
        assert "a5" not in callers.started
        await callers.end_all()
        assert callers.admission.num_running_tokens == 0

    asyncio.run(test())


def test_a_deadline_ends_the_wait() -> None:
    async def test(callers: Callers) -> None:
        await callers.call("a1", 100)
        with pytest.raises(DeadlineError, match="waited for its turn"):
            async with callers.admission.admit("a", 100, timeout_s=0.01):
                pass
        await callers.end_all()

    run(test)


def test_the_time_to_come_back_is_that_of_the_tokens_ahead() -> None:
    clock = iter([0.0, 10.0]).__next__

    async def test() -> int | None:
        admission = Admission(10, 100, 400, clock)
        async with admission.admit("a", 100):  # 10 tokens a second
            pass
        callers = Callers(admission)
        admission._clock = lambda: 0.0
        await callers.call("a1", 100)
        await callers.call("a2", 300, num_bytes=300)
        with pytest.raises(ApiError) as refused:
            async with callers.admission.admit("a", 200, None, 200):
                pass
        await callers.end_all()
        return refused.value.retry_after_s

    assert asyncio.run(test()) == 40


def test_the_estimate_learns_how_many_characters_make_a_token() -> None:
    estimate = TokenEstimate()
    request = ScoringRequest("p" * 100, ["c" * 100, "c" * 100])
    assert estimate(request) == 3 + 67  # duplicates are computed once
    candidates = [ScoredCandidate(0, 1.0, 1, 40, False, None)]
    answer = BestOfN(0, candidates, 10, 40, 0)
    for _ in range(200):
        estimate.learn(request, answer)
    assert estimate(request) == pytest.approx(3 + 50, abs=1)
    messages = [{"role": "user", "content": "p" * 100}]
    assert estimate(ScoringRequest(messages, request.candidates)) == estimate(request)
    cut = [ScoredCandidate(0, 1.0, 1, 40, True, None)]
    estimate.learn(ScoringRequest("p", ["c" * 10**6]), BestOfN(0, cut, 1, 40, 0))
    assert estimate(request) == pytest.approx(3 + 50, abs=1)  # of what was cut nothing is learned
    staged = replace(request, candidates=["c" * 10**6], stages=StagesAsked(("parse",)))
    estimate.learn(staged, answer)
    assert estimate(request) == pytest.approx(3 + 50, abs=1)  # nor of what fell out


def test_what_will_be_cut_or_refused_costs_nothing() -> None:
    estimate = TokenEstimate(max_model_len=100)
    assert estimate(ScoringRequest("p" * 10**6, ["c" * 10**6, "d" * 10**6])) == 3 + 300
    assert estimate(ScoringRequest(None, [(7,) * 50, (7,) * 500])) == 3 + 150
