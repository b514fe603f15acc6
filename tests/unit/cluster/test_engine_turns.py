"""Who may use an engine: many segments at once, or one under suspicion by itself."""

from __future__ import annotations

import asyncio

from codepmp_ray.cluster.engine_actor import _LoopState


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
