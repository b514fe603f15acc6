"""One thread writes memory that another wants to change: what comes first is written or copied."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Handover(Generic[Key]):
    """The parts of one writing. `begin`, then `take` each in the writing thread; `release` in the
    other, from the last part to the first, so that both meet.

    Args:
        copy: makes the copy that is written in a part's stead. The writing waits meanwhile.
    """

    def __init__(self, copy: Callable[[Key], None]) -> None:
        self._copy = copy
        self._changed = threading.Condition()
        self._waiting: dict[Key, None] | None = None  # None: what there is to write is not known
        self._copied: set[Key] = set()
        self._being_written: Key | None = None

    def begin(self, parts: Iterable[Key]) -> None:
        """What will be written, in this order; no part may change before `release` has returned."""
        with self._changed:
            self._waiting, self._copied = dict.fromkeys(parts), set()
            self._being_written = None
            self._changed.notify_all()

    def take(self, part: Key) -> bool:
        """The writing is through with the part before, and writes this one; is it copied?"""
        with self._changed:
            assert self._waiting is not None, "begin comes first"
            self._waiting.pop(part, None)
            self._being_written = part
            self._changed.notify_all()
            return part in self._copied

    def release(self) -> None:
        """Copy what the writing has not come to, and wait until it is through with what it has."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None)
        while self._copy_one():
            pass
        with self._changed:
            self._changed.wait_for(
                lambda: self._being_written is None or self._being_written in self._copied
            )

    def close(self) -> None:
        """The writing is through with all parts, or has failed."""
        with self._changed:
            self._waiting, self._being_written = {}, None
            self._changed.notify_all()

    def _copy_one(self) -> bool:
        with self._changed:  # held while copying: the writing may come to this part
            if not self._waiting:
                return False
            part, _ = self._waiting.popitem()
            self._copy(part)
            self._copied.add(part)
            return True
