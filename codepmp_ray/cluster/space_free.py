"""Paths without spaces, for the tools that cannot take one: a link in a private temporary folder.

- ld.so splits LD_PRELOAD at spaces and colons, with no way to escape them.
- Ray starts a worker with a runtime environment (Ray Train's controller is one) through a shell,
  with the interpreter's path unquoted.
- torch.compile hands the linker torch's own folder unquoted.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from codepmp_ray.errors import ResourceError

_SEPARATORS = " :"


def use_space_free_interpreter() -> None:
    """Make `sys.executable` a path without spaces, for the processes that are started with it.

    A virtual environment seen through a link is the same environment: its prefix, and so every
    library's path, then begins with the link.
    """
    executable = Path(sys.executable)
    prefix = Path(sys.prefix)
    if executable.is_relative_to(prefix):
        link = path_without_separators(prefix)
        sys.executable = str(link / executable.relative_to(prefix))


def path_without_separators(path: Path) -> Path:
    """`path`, or a link to it whose own path has neither space nor colon.

    Raises ResourceError when no folder can hold the link.
    """
    if not any(mark in str(path) for mark in _SEPARATORS):
        return path
    # The folder is named after the target, so that two installations never share a link.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    link = _private_folder() / f"{digest}-{path.name.replace(' ', '-')}"
    if not (link.is_symlink() and os.readlink(link) == str(path)):
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(path)
        fresh.replace(link)
    return link


def _private_folder() -> Path:
    """A folder of this user without separators in its path. What lies in it gets preloaded, so a
    folder that someone else made or may write to is not used."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if any(mark in base for mark in _SEPARATORS):
            continue
        folder = Path(base) / f"codepmp-preload-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
        except OSError:
            continue
        mine = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
        if mine and not facts.st_mode & 0o022:
            return folder
    raise ResourceError(
        "No temporary folder of this user has a path without spaces.",
        "Set TMPDIR to a writable folder whose path has no space.",
    )
