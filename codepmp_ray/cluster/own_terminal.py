"""The terminal is for what this program says: what others write on it goes to a file.

Ray's C++ core writes to file descriptor 2, libraries to the stream that they found when they were
imported, and child processes inherit both. Neither can be told to be silent everywhere. So while a
job is connected, descriptor 2 is a file and `sys.stderr` a new stream on the terminal.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Said at each start, and of no use to anybody.
_EXPECTED = re.compile(r"Set ray log level from environment variable")


@contextmanager
def own_terminal() -> Iterator[Path]:
    """Keep others from the terminal for the time of the block; yields their file.

    The file is removed at the end if nothing worth reading is in it. A `sys.stderr` that is not
    descriptor 2 (a notebook's, a test's) stays what it is.
    """
    descriptor, name = tempfile.mkstemp(prefix="codepmp-others-", suffix=".log")
    terminal, theirs, show = os.dup(2), sys.stderr, warnings.showwarning
    theirs.flush()
    if _descriptor(theirs) == 2:
        # Of its own descriptor, which lives as long as somebody has the stream.
        sys.stderr = os.fdopen(
            os.dup(2), "w", 1, encoding=theirs.encoding, errors="backslashreplace"
        )

        def show_apart(message: Any, category: Any, name: str, line: int, *_: Any) -> None:
            show(message, category, name, line, theirs)

        warnings.showwarning = show_apart
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        for stream in (theirs, sys.stderr):
            stream.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        sys.stderr, warnings.showwarning = theirs, show
        lines = Path(name).read_text("utf-8", "replace").splitlines()
        if all(not line.strip() or _EXPECTED.search(line) for line in lines):
            os.unlink(name)


def _descriptor(stream: Any) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
