"""Progress with rate and ETA: a live bar on a terminal, one line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

_LOOK_S = 25.0  # two looks at what is waited for make less than a minute


class Progress:
    """Context manager. `update(done)` may be called as often as one likes.

    Args:
        label: what is being done, for example "synthesis".
        total: number of units of work.
        unit: plural noun for the unit, for example "shards".
        done: units that an earlier run had finished; they do not count towards the rate.
        silence_s: elsewhere than on a terminal, a line comes at least this often, also while
            nobody calls `update`: nodes that are waited for look like a hang otherwise.
        waiting_for: asked while nothing gets done; what it says is shown, if it says something.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        line_interval_s: float = 10.0,
        silence_s: float = 60.0,
        waiting_for: Callable[[], str] | None = None,
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._done_before = self._done = done
        self._interval_s = line_interval_s
        self._start_s = self._rate_start_s = self._last_line_s = time.monotonic()
        self._bar: RichProgress | None = None
        self._first: tuple[float, int] | None = None  # when the first units were done, and how many
        self._note = ""
        self._silence_s, self._waiting_for, self._waits = silence_s, waiting_for, ""
        self._ended = threading.Event()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self.unit),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.label, total=self.total, completed=self._done, note=""
            )
        else:
            resumed = f" ({self._done} done before)" if self._done else ""
            self._print(f"{self.label}: {self.total} {self.unit}{resumed}")
        threading.Thread(target=self._break_silence, daemon=True).start()
        return self

    def update(self, done: int, note: str = "") -> None:
        """Set the number of finished units; `note` is shown beside it (a loss, a rate).

        A number below the one before means that work was lost: the rate is measured anew.
        """
        if done < self._done:
            self._done_before, self._first, self._rate_start_s = done, None, time.monotonic()
        if self._first is None and done > self._done_before:
            self._first = (time.monotonic(), done)
        self._done, self._note, self._waits = done, note, ""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now_s = time.monotonic()
        if now_s - self._last_line_s >= self._interval_s and done < self.total:
            self._last_line_s = now_s
            self._print(self._line(now_s))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._print(self._line(time.monotonic()))

    def _break_silence(self) -> None:
        seen, told = self._done, ""
        while not self._ended.wait(min(self._silence_s, _LOOK_S)):
            is_still = self._waiting_for is not None and self._done == seen
            self._waits = self._waiting_for() if self._waiting_for and is_still else ""
            seen, now_s = self._done, time.monotonic()
            is_news = bool(self._waits) and self._waits != told
            if self._bar is not None:
                self._bar.update(self._task, note=self._waits or self._note)
            elif is_news or now_s - self._last_line_s >= self._silence_s:
                self._last_line_s, told = now_s, self._waits
                self._print(self._line(now_s))

    def _line(self, now_s: float) -> str:
        elapsed_s = now_s - self._start_s
        parts = [f"{self.label}: {self._done}/{self.total} {self.unit}", f"{elapsed_s:.0f} s"]
        if self._done < self.total:
            parts.append(f"ETA {self._eta(now_s)}")
        parts += filter(None, (self._note, self._waits))
        return ", ".join(parts)

    def _eta(self, now_s: float) -> str:
        """From the rate since the first units, so that starting engines does not count as work."""
        if self._first is None:
            return "unknown"
        first_s, num_first = self._first
        if self._done > num_first:
            per_unit_s = (now_s - first_s) / (self._done - num_first)
        else:
            per_unit_s = (now_s - self._rate_start_s) / (self._done - self._done_before)
        return f"{per_unit_s * (self.total - self._done):.0f} s"

    @staticmethod
    def _print(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
