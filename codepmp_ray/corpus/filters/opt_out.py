"""Owners who do not want their code used: a list of repositories and of contents.

The same names serve a corpus that is yet to be made and data that is finished (`jobs.purge`): both
carry `repo`, `blob_id` and `source_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codepmp_ray.corpus.blobs import git_blob_id
from codepmp_ray.errors import ConfigError


@dataclass(frozen=True)
class OptOutList:
    """Entries in lower case: repositories ("owner/name"), git blob ids, `source_id`s."""

    entries: frozenset[str]

    def match(
        self, repo: str | None, blob_id: str | None, source_id: str | None, data: bytes | None
    ) -> str | None:
        """The entry that names this file, or None. `repo` also matches without "@revision".

        The git blob id is worked out from `data` where the data set does not give it.
        """
        if not self.entries:
            return None
        names = [repo, (repo or "").partition("@")[0], blob_id, source_id]
        if data is not None:
            names.append(git_blob_id(data))
        return next((n for n in names if n and n.lower() in self.entries), None)


def load_opt_out(path: str | None) -> OptOutList:
    """The list at `path`: one entry per line, "#" begins a comment. None is the empty list.

    Raises ConfigError when it cannot be read.
    """
    if path is None:
        return OptOutList(frozenset())
    try:
        info = Path(path).expanduser().stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _read(path, info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: str, _size: int, _mtime_ns: int) -> OptOutList:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    lines = (line.partition("#")[0].strip().lower() for line in text.splitlines())
    return OptOutList(frozenset(line for line in lines if line))


def _unreadable(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"corpus.filters.opt_out_path={path!r} cannot be read ({error}).",
        "Name a UTF-8 text file with one repository or blob id per line; in a cluster it must "
        "lie on storage that every node sees.",
    )
