"""Owners who do not want their code used: a list of repositories and of contents.

The same names serve a corpus that is yet to be made and data that is finished (`jobs.purge`): both
carry `repo`, `blob_id` and `source_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from codepmp_ray.corpus.blobs import git_blob_id
from codepmp_ray.errors import ConfigError
from codepmp_ray.storage.inputs import InputFile, RemoteFile, input_file


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
    file = input_file(path)
    if isinstance(file, RemoteFile):
        # Read once per process: asking whether it changed would be a request for every file.
        return _read(path, 0, 0)
    try:
        info = file.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _read(path, info.st_size, info.st_mtime_ns)


def read_entries(file: InputFile) -> frozenset[str]:
    """The lines of a text file, without comments ("#" to the end of the line) and blank ones.

    Raises OSError or UnicodeDecodeError when it is no readable UTF-8 text.
    """
    # Editors put a byte order mark first; read as text, it would hide the first entry.
    text = file.read_bytes().decode("utf-8-sig")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return frozenset(line for line in lines if line)


@lru_cache(maxsize=4)
def _read(path: str, _size: int, _mtime_ns: int) -> OptOutList:
    try:
        entries = read_entries(input_file(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return OptOutList(frozenset(entry.lower() for entry in entries))


def _unreadable(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"corpus.filters.opt_out_path={path!r} cannot be read ({error}).",
        "Name a UTF-8 text file with one repository or blob id per line; in a cluster it must "
        "lie on storage that every node sees.",
    )
