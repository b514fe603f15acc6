"""The terminal is for what this program says: what others write on it goes to a file.

Ray's C++ core writes to file descriptor 2, libraries to the stream that they found when they were
imported, and child processes inherit both. Neither can be told to be silent everywhere. So while a
job is connected, descriptor 2 is a file and `sys.stderr` a new stream on the terminal. Ray's own
threads also print what its core reports to standard output, between our results.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from codepmp_ray.attempts import own_stream, set_own_stream

# Said at each start, and of no use to anybody.
_EXPECTED = re.compile(r"\s*$|.*Set ray log level from environment variable")


@contextmanager
def own_terminal() -> Iterator[Path]:
    """Keep others from the terminal for the time of the block; yields their file, which goes if
    nothing worth reading is in it. A notebook's or a test's `sys.stderr` stays what it is."""
    descriptor, name = tempfile.mkstemp(prefix="codepmp-others-", suffix=".log")
    terminal, theirs, show = os.dup(2), own_stream("stderr"), warnings.showwarning
    output = own_stream("stdout")
    if output is sys.__stdout__:
        set_own_stream("stdout", cast(TextIO, _OwnOutput(output)))
    if theirs is sys.__stderr__:
        ours = os.fdopen(os.dup(2), "w", 1, theirs.encoding, "backslashreplace")
        set_own_stream("stderr", ours)
        warnings.showwarning = lambda what, kind, file, line, *_: show(
            what, kind, file, line, theirs
        )
    theirs.flush()
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        theirs.flush()
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        set_own_stream("stdout", output)
        set_own_stream("stderr", theirs)
        warnings.showwarning = show
        if all(map(_EXPECTED.match, Path(name).read_text("utf-8", "replace").splitlines())):
            os.unlink(name)


class _OwnOutput:
    """Standard output without what threads of Ray print: that goes to descriptor 2."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            os.write(2, text.encode("utf-8", "backslashreplace"))
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
