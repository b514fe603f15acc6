"""Who may use an engine: many segments at once, or one under suspicion by itself."""

from __future__ import annotations

import asyncio
import random

import pytest

from codepmp_ray.cluster.engine_actor import _LoopState
from codepmp_ray.cluster.turns import Turns


async def _use(turns: _LoopState, name: str, alone: bool, inside: set[str], seen: list) -> None:
    async with turns.turn(alone):
        inside.add(name)
        for _ in range(5):
            await asyncio.sleep(0)
            seen.append((name, alone, frozenset(inside)))
        inside.discard(name)


def _run(*segments: tuple[str, bool]) -> list:
    async def main() -> list:
        turns, inside, seen = _LoopState(8), set(), []
        await asyncio.gather(*[_use(turns, *segment, inside, seen) for segment in segments])
        return seen

    return asyncio.run(asyncio.wait_for(main(), 5))


def test_ordinary_segments_share() -> None:
    seen = _run(("a", False), ("b", False), ("c", False))
    assert max(len(company) for _, _, company in seen) == 3


def test_one_that_is_alone_has_no_company() -> None:
    seen = _run(("a", False), ("b", True), ("c", False), ("d", True), ("e", False))
    for name, alone, company in seen:
        assert not alone or company == {name}
    assert {name for name, _, _ in seen} == set("abcde")


def test_newcomers_wait_behind_one_that_wants_to_be_alone() -> None:
    order = [name for name, _, _ in _run(("a", False), ("b", True), ("c", False))]
    assert order == ["a"] * 5 + ["b"] * 5 + ["c"] * 5


@pytest.mark.parametrize("seed", range(40))
def test_whoever_leaves_at_whatever_moment_keeps_no_turn(seed: int) -> None:
    choice = random.Random(seed)

    async def main() -> None:
        turns, inside = Turns(), [0, 0]  # sharing, alone

        async def use(alone: bool) -> None:
            async with turns.turn(alone):
                inside[alone] += 1
                try:
                    assert inside[1] == 0 or inside == [0, 1]
                    await asyncio.sleep(choice.choice([0, 0, 0.001]))
                finally:
                    inside[alone] -= 1

        tasks = [asyncio.create_task(use(choice.random() < 0.3)) for _ in range(30)]
        for _ in range(8):
            await asyncio.sleep(0)
            for task in choice.sample(tasks, 5):
                task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert {type(item) for item in ended} <= {type(None), asyncio.CancelledError}
        async with asyncio.timeout(5), turns.turn(True):
            pass

    asyncio.run(main())


def test_who_wanted_to_be_alone_and_left_holds_nobody_up() -> None:
    async def main() -> None:
        turns, goes_on = Turns(), asyncio.Event()

        async def use(alone: bool) -> None:
            async with turns.turn(alone):
                await goes_on.wait()

        first = asyncio.create_task(use(False))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(use(True))
        await asyncio.sleep(0)
        shared = asyncio.create_task(use(False))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        async with asyncio.timeout(5), turns.turn(False):  # beside the first, which goes on
            goes_on.set()
        await asyncio.gather(first, shared)

    asyncio.run(main())
