"""Rows that can only be reached from the beginning of what holds them: a row group, a stream."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator, Hashable, Iterator
from typing import Any


class Continued:
    """One reading of such rows: who goes on where the last call ended reads nothing again."""

    def __init__(self) -> None:
        self._rows: Generator[tuple[int, Any], None, None] | None = None
        self._key: Hashable = None
        self._next = 0
        atexit.register(self.close)  # what it would run later finds no modules any more

    def rows(
        self,
        key: Hashable,
        first: int,
        stop: int,
        begin: Callable[[], Generator[tuple[int, Any], None, None]],
    ) -> Iterator[tuple[int, Any]]:
        """(index, row) of the rows [first, stop) of what `key` names, in order.

        `begin` reads it from `first` on, or from before. What it raises ends the reading.
        """
        if self._rows is None or self._key != key or first < self._next:
            self.close()
            self._rows, self._key, self._next = begin(), key, 0
        rows = self._rows
        try:
            for index, row in rows:
                self._next = index + 1
                if index >= first:
                    yield index, row
                if index + 1 >= stop:
                    return
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
