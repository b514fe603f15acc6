"""Attempts at a run's stages: the log of each, kept where it outlives the cluster.

    <run_dir>/logs/20261130T215301Z-pairs-make-3f2a.json   host, begin, end, exit code, error
    <run_dir>/logs/20261130T215301Z-pairs-make-3f2a.log    what it printed

Credentials in URLs are left out, and on a terminal the bars. A record without an end is that of an
attempt that runs still, or was killed. What cannot be written here costs no attempt.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO, cast

from codepmp_ray.errors import CodePMPError, StorageError
from codepmp_ray.json_records import record_bytes, stored_record
from codepmp_ray.redaction import redacted
from codepmp_ray.storage import open_store

FOLDER = "logs"
_WRITE_INTERVAL_S = 30.0
# Of a long log its beginning and its end are kept.
_HEAD_CHARS, _TAIL_CHARS = 200_000, 2_000_000
_RECORD = re.compile(r"\d{8}T\d{6}Z-[a-z-]+-[0-9a-f]{4}\.json")
_LEFT_OUT = "... (lines were left out here)\n"
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-KSTfhlsu]|\r(?!\n)")  # of a bar that is drawn again
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Attempt:
    """One attempt that runs; `write` takes what it prints, `end` says how it ended."""

    def __init__(self, run_dir: str, command: str) -> None:
        began = time.gmtime()
        words = "-".join(command.split())
        stamp = time.strftime("%Y%m%dT%H%M%SZ", began)
        self._name = f"{FOLDER}/{stamp}-{words}-{secrets.token_hex(2)}"
        self._store = open_store(run_dir)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._head, self._tail, self._line = "", "", ""
        self._is_cut, self._has_news = False, False
        self._record: dict[str, Any] = {
            "command": command,
            "arguments": redacted(" ".join(sys.argv[1:])),
            "host": platform.node(),
            "pid": os.getpid(),
            "began": _text(began),
            "ended": None,
            "exit_code": None,
            "error": None,
        }
        self._put_record()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True)
        self._writer.start()

    def write(self, text: str) -> None:
        """Take a piece of what is printed, by any thread."""
        if _CURSOR.search(text):
            return
        with self._lock:
            *lines, self._line = (self._line + _COLOUR.sub("", text)).split("\n")
            for line in lines:
                self._add(redacted(line) + "\n")

    def end(self, exit_code: int, error: str = "") -> None:
        """`error` is the line that says why, "" where nothing went wrong."""
        with self._lock:
            self._add(redacted(self._line + "\n" * bool(self._line)))
            self._line = ""
        self._ended.set()
        self._writer.join()
        changes = {"ended": _text(time.gmtime()), "exit_code": exit_code}
        self._record |= changes | {"error": redacted(error) or None}
        self._put_log()
        self._put_record()

    def _add(self, text: str) -> None:
        self._has_news = True
        if not self._tail and len(self._head) + len(text) <= _HEAD_CHARS:
            self._head += text
            return
        self._tail += text
        if len(self._tail) > 2 * _TAIL_CHARS:
            self._tail, self._is_cut = self._tail[-_TAIL_CHARS:], True

    def _write_now_and_then(self) -> None:
        while not self._ended.wait(_WRITE_INTERVAL_S):
            self._put_log()

    def _put_log(self) -> None:
        with self._lock:
            text = self._head + _LEFT_OUT * self._is_cut + self._tail
            has_news, self._has_news = self._has_news, False
        if has_news:
            self._put(".log", text.encode("utf-8", "backslashreplace"))

    def _put_record(self) -> None:
        self._put(".json", record_bytes(self._record, indent=2))

    def _put(self, ending: str, data: bytes) -> None:
        with suppress(CodePMPError, OSError):
            self._store.put(self._name + ending, data)


class Tee:
    """A standard stream whose text an attempt takes too. `stream` may be exchanged."""

    def __init__(self, stream: TextIO, attempt: Attempt) -> None:
        self.stream, self._attempt = stream, attempt

    def write(self, text: str) -> int:
        self._attempt.write(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def printed_to(attempt: Attempt) -> Iterator[None]:
    """Let `attempt` have what is printed in the block."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, Tee(stream, attempt)) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def own_stream(name: Literal["stdout", "stderr"]) -> TextIO:
    """The standard stream itself, below a Tee."""
    stream = getattr(sys, name)
    return stream.stream if isinstance(stream, Tee) else stream


def set_own_stream(name: Literal["stdout", "stderr"], new: TextIO) -> None:
    """Exchange what `own_stream` gives; a Tee stays."""
    stream = getattr(sys, name)
    if isinstance(stream, Tee):
        stream.stream = new
    else:
        setattr(sys, name, new)


def last_attempt(run_dir: str) -> dict[str, Any] | None:
    """The record of the newest attempt that can be read, with the path of its `log`; None where
    there is none."""
    store = open_store(run_dir)
    for name in reversed([name for name in store.list(FOLDER) if _RECORD.fullmatch(name)]):
        with suppress(StorageError):
            record = stored_record(store, f"{FOLDER}/{name}")
            log = f"{FOLDER}/{name.removesuffix('.json')}.log"
            return record | {"log": store.locate(log) if store.exists(log) else None}
    return None


def _text(moment: time.struct_time) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
