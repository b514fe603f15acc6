"""Who may use something now: any number who share it, or one alone."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """In order of arrival: whoever wants to be alone waits for those inside, newcomers for it.

    Nothing is awaited on the way out, so that a second cancellation cannot keep a turn.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[asyncio.Future[None], bool] = OrderedDict()
        self._num_sharing = 0
        self._is_alone = False

    @asynccontextmanager
    async def turn(self, alone: bool) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the block."""
        if self._waiting or not self._may(alone):
            await self._wait(alone)
        else:
            self._take(alone)
        try:
            yield
        finally:
            self._give_back(alone)

    async def _wait(self, alone: bool) -> None:
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[given] = alone
        try:
            await given
        except asyncio.CancelledError:
            if self._waiting.pop(given, None) is not None:
                self._next()  # others may have waited for this one
            elif not given.cancelled():  # it was given at the same moment
                self._give_back(alone)
            raise

    def _next(self) -> None:
        while self._waiting:
            given, alone = next(iter(self._waiting.items()))
            if not given.done():  # else who waited has left, and its task has not run yet
                if not self._may(alone):
                    return
                given.set_result(None)
                self._take(alone)
            del self._waiting[given]

    def _may(self, alone: bool) -> bool:
        return not self._is_alone and not (alone and self._num_sharing)

    def _take(self, alone: bool) -> None:
        self._is_alone |= alone
        self._num_sharing += not alone

    def _give_back(self, alone: bool) -> None:
        if alone:
            self._is_alone = False
        else:
            self._num_sharing -= 1
        self._next()
