"""What every command shares: one-line errors with exit codes, and clean interruption."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from codepmp_ray import errors
from codepmp_ray.attempts import Attempt, printed_to
from codepmp_ray.errors import CodePMPError, StorageError
from codepmp_ray.redaction import redacted

_EXIT_INTERRUPTED = 130
_STORAGE_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
}
_NAMED_ERROR = re.compile(r"^\s*codepmp_ray\.errors\.(\w+): (.+)$", re.MULTILINE)


def run_command(body: Callable[[], None]) -> None:
    """Run `body` and exit with its code; known errors are one line.

    SIGTERM (sent by `ray job stop`) is treated like Ctrl-C, so that both clean up.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        body()
    except BaseException as error:  # noqa: BLE001 - what nobody foresaw ends here too
        code, text = ending_of(error)
        if text:
            print(text, file=sys.stderr)
        _exit(code)
    _exit(0)


def ending_of(error: BaseException) -> tuple[int, str]:
    """The exit code, and what is said last, of a command that ends with `error`."""
    # The code is SIGTERM's where Ray's own handler had it, while Ray starts.
    is_stopped = isinstance(error, SystemExit) and error.code == signal.SIGTERM
    if is_stopped or isinstance(error, KeyboardInterrupt):
        return _EXIT_INTERRUPTED, "Interrupted. Run the same command again to resume."
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1, ""
    if isinstance(error, BrokenPipeError):
        return 0, ""
    known = find_known_error(error)
    if known is None:  # a traceback as Python's own, and its exit code
        trace = traceback.format_exception(error)
        return 1, redacted("".join(trace)).rstrip()
    return known.exit_code, f"Error: {known}"


@contextmanager
def kept_attempt(run_dir: str, command: str) -> Iterator[None]:
    """Keep what the block prints, and how it ends, in the run directory."""
    attempt = Attempt(run_dir, command)
    try:
        with printed_to(attempt):
            yield
    except BaseException as error:
        code, text = ending_of(error)
        attempt.write(f"{text}\n" if text else "")
        attempt.end(code, text.splitlines()[-1] if code and text else "")
        raise
    attempt.end(0)


def find_known_error(error: BaseException) -> CodePMPError | None:
    """The CodePMPError in a chain of causes: Ray wraps what its workers raise.

    Ray Data's wrapper loses its cause on the way between processes; the text of the worker's
    traceback is what is left of it.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, CodePMPError):
            return current
        queue += [getattr(current, "cause", None), current.__cause__, current.__context__]
        failures = getattr(current, "worker_failures", None)
        if isinstance(failures, dict):
            queue += list(failures.values())
    return _error_of_storage(error) or _error_in_text(str(error))


def _error_of_storage(error: BaseException | None) -> CodePMPError | None:
    """For what the file system refused in a place that has no message of its own."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _STORAGE_ERRORS):
        error = error.__cause__
    if not isinstance(error, OSError):
        return None
    return StorageError(
        f"{error.filename or 'The file system'}: {error.strerror}.",
        "Free disk space, make it writable or choose another run_dir; the same command resumes.",
    )


def _error_in_text(text: str) -> CodePMPError | None:
    """The first error that a worker's traceback names; what it raised from comes before it."""
    for name, message in _NAMED_ERROR.findall(text):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, CodePMPError):
            return kind(message.strip())
    return None


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter teardown after Ray and torch can hang in their threads; everything is flushed.
    os._exit(code)
