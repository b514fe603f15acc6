"""The test's side: calls into the worker within the limits, and comes to a verdict."""

from __future__ import annotations

import builtins
import json
import os
import re
import resource
import select
import socket
import sys
import time
from typing import Any, NoReturn

from .wire import PREFIX_BYTES, decode, encode, frame, frame_size, run_source

_MAX_MESSAGE_BYTES = 16 << 20
_MAX_DETAIL_CHARS = 500
_TICK_S = 0.05
_VERDICT_FD = 1


class Verdict(Exception):
    """Ends the execution with an outcome before the test is done."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome, self.detail = outcome, detail


def run_test(worker: WorkerHandle, job: dict[str, Any]) -> dict[str, Any]:
    """Load the program, run the test, return the verdict as plain data."""
    reports: list[Any] = []
    name, num_calls = job["entry_point"], 0

    def candidate(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        return worker.call({"name": name, "args": encode(args), "kwargs": encode(kwargs)})

    try:
        if job["shared"]:  # the worker says itself whether it passed
            parts = {part: job[part] for part in ("setup", "program", "test")}
            worker.call({**parts, "name": name})
            return {"outcome": "passed", "detail": ""}
        try:
            worker.call({"program": job["program"]})
        except Verdict:
            raise
        except Exception as error:  # noqa: BLE001 - the answer raises what it likes
            return _failure(error, "on loading: ")
        scope: dict[str, Any] = {"__name__": "test", "report": reports.append}
        run_source(job["setup"], "setup", scope)
        scope[name] = candidate  # a few tests call it by name
        run_source(job["test"], "test", scope)
        scope["check"](candidate)
        if not num_calls:
            raise Verdict("failed", f"the test never called {name}")
    except Verdict as verdict:
        return {"outcome": verdict.outcome, "detail": verdict.detail}
    except Exception as error:  # noqa: BLE001 - whatever a test raises means that it failed
        return _failure(error)
    return {"outcome": "passed", "detail": "", "reports": [encode(item) for item in reports]}


def _failure(error: Exception, where: str = "") -> dict[str, Any]:
    """What an exception means: a package that is not here says nothing about the answer."""
    if isinstance(error, ModuleNotFoundError):
        name = re.sub(r"No module named '(\w+).*", r"\1", str(error))
        if name not in sys.stdlib_module_names:
            return {"outcome": "missing_package", "detail": name}
    return {"outcome": "failed", "detail": where + _describe(error)}


class WorkerHandle:
    """Calls to the worker process. Watches time, output and memory of all that it started."""

    def __init__(
        self, channel: socket.socket, output_fd: int, pid: int, limits: dict[str, Any]
    ) -> None:
        self._channel, self._output_fd, self._pid = channel, output_fd, pid
        self._limits = limits
        self._deadline_s = time.monotonic() + limits["time_limit_s"]
        self._num_output_bytes = 0
        self._received = b""
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(output_fd, select.POLLIN)
        self._poll.register(_VERDICT_FD, 0)  # reports POLLERR once nobody reads the verdict

    def call(self, request: dict[str, Any]) -> Any:
        """Send `request`; the decoded value, or the exception that the answer raised.

        Raises Verdict when a limit is broken or the worker is gone.
        """
        self._channel.settimeout(max(self._deadline_s - time.monotonic(), 0.001))
        try:
            self._channel.sendall(frame(request))
        except TimeoutError:
            self._time_out()
        except OSError:
            pass  # the other end is closed; receiving finds out why
        reply = self._receive()
        if "error" in reply:
            raise _as_exception(str(reply["error"]), str(reply.get("message", "")))
        return decode(reply["value"])

    def _receive(self) -> dict[str, Any]:
        last_watch_s = time.monotonic()
        while True:
            events = dict(self._poll.poll(_TICK_S * 1000))
            if _VERDICT_FD in events:
                raise Verdict("killed", "the caller is gone")
            if self._output_fd in events:
                self._drain_output(events[self._output_fd])
            if self._channel.fileno() in events:
                part = self._channel.recv(1 << 16)
                self._received += part
                if not part:  # whether the process ended too, _watch sees
                    self._poll.unregister(self._channel)
                if (reply := self._take_reply()) is not None:
                    return reply
            now_s = time.monotonic()
            if now_s >= self._deadline_s:
                self._time_out()
            if now_s - last_watch_s >= _TICK_S:
                last_watch_s = now_s
                self._watch()

    def _take_reply(self) -> dict[str, Any] | None:
        if len(self._received) < PREFIX_BYTES:
            return None
        end = PREFIX_BYTES + frame_size(self._received[:PREFIX_BYTES])
        if end > _MAX_MESSAGE_BYTES:
            raise Verdict("killed", f"a result of {end} bytes exceeds {_MAX_MESSAGE_BYTES}")
        if len(self._received) < end:
            return None
        body, self._received = self._received[PREFIX_BYTES:end], self._received[end:]
        return json.loads(body)

    def _drain_output(self, event: int) -> None:
        part = os.read(self._output_fd, 1 << 16) if event & select.POLLIN else b""
        if not part:
            self._poll.unregister(self._output_fd)
        self._num_output_bytes += len(part)
        limit = self._limits["max_output_bytes"]
        if self._num_output_bytes > limit:
            raise Verdict("killed", f"printed more than max_output_bytes={limit}")

    def _watch(self) -> None:
        """Reap, and end the execution when the worker is gone or all processes use too much."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                raise Verdict("failed", "the code ended its process") from None
            if pid == 0:
                break
            if pid != self._pid:
                continue  # an orphan
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                raise Verdict("killed", f"signal {-code}")
            raise Verdict(
                "failed", f"the code ended its process (exit code {code}) before the test was done"
            )
        # Without a /proc of its own the host watches from outside.
        names = os.listdir("/proc") if os.path.isdir("/proc") else []
        used_mb = sum(map(_resident_bytes, filter(str.isdigit, names))) >> 20
        limit = self._limits["memory_mb"]
        if used_mb > limit:
            raise Verdict("killed", f"all processes together used {used_mb} MB > {limit}")

    def _time_out(self) -> NoReturn:
        raise Verdict("timeout", f"no result after time_limit_s={self._limits['time_limit_s']:g}")


def _as_exception(name: str, message: str) -> Exception:
    """The built-in exception of that name, for tests that expect one."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError and the like take more arguments
            pass
    return Exception(f"{name}: {message}")


def _resident_bytes(pid: str) -> int:
    if pid == "1":
        return 0
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it ended meanwhile
        return 0


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:_MAX_DETAIL_CHARS]
