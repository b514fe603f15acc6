"""Owners who do not want their code used: names of repositories, files and contents.

The same names, compared in the same way, keep files out of a corpus that is yet to be made and
take rows out of data that is finished (`synthesis.purge`): both carry `repo`, `path`, `blob_id` and
`source_id`.

    owner/name            the repository, whichever "@revision" a data set adds
    owner/name@1.2        one revision of it
    owner/*               all of an owner's
    owner/name:src/a.py   one file; ":src/a.py" where a row has no repository
    owner/name:src/       one folder
    <40 or 32 hex digits> a file's git blob id, or its `source_id`

A repository may be written as its address (https://github.com/owner/name.git), a file, folder or
owner as their pages. Case does not count.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from codepmp_ray.errors import ConfigError
from codepmp_ray.json_records import stored_record
from codepmp_ray.storage import Store
from codepmp_ray.storage.inputs import InputFile, RemoteFile, input_file

PURGES = "purges"  # folder of a run, with one record for each request
_HOST = re.compile(
    r"(?:[a-z+]+://)?(?:[\w.:%-]+@)?(?:www\.|ssh\.|api\.|codeload\.)?(raw\.githubusercontent\.com|"
    r"github\.com|gitlab\.com|bitbucket\.org|codeberg\.org|huggingface\.co)(?::\d+(?=/))?[/:]"
    r"(?:repos/(?=.*/)|datasets/)?"
)
_SHORT_HOST = re.compile(r"(?:github:/*|pkg:github/)(?=[^/:]+/)")
# Where the page of a file or folder says which branch it shows, and other pages of a repository.
_PAGE = re.compile(
    r"([^/]+/.+?)/(?:-/)?(?:blob|tree|raw|src|blame|edit)/(?:refs/(?:heads|tags)/)?[^/]+(?:/(.*))?"
)
_OTHER_PAGE = re.compile(
    r"([^/]+/[^/:]+)/(?:-/)?(?:issues|pulls?|merge_requests|commits?|releases|archive|wiki|actions"
    r"|branches|tags|zip|tar\.gz|tarball|zipball|graphs|network|settings)\b.*"
)


@dataclass(frozen=True)
class OptOutList:
    """Entries as `plain_name` writes them."""

    entries: frozenset[str]

    def match(self, repo: str | None, path: str | None, *ids: str | None) -> frozenset[str]:
        """The entries that name a file; `ids` are what it is called by its content."""
        if not self.entries:
            return frozenset()
        names = {one_id.lower() for one_id in ids if one_id}
        named, file = plain_name(repo or ""), _plain_path(path or "")
        folders = [file[: match.end()] for match in re.finditer("/", file)]
        for place in {named, named.partition("@")[0]}:
            names |= {place, *(f"{place}:{part}" for part in (file, *folders))}
        return self.entries & (names | {f"{named.partition('/')[0]}/*"})

    def also(self, names: frozenset[str]) -> OptOutList:
        """The list with more `plain_name`s."""
        return OptOutList(self.entries | names) if names else self


def plain_name(name: str) -> str:
    """An entry, or a data set's name of a repository, as they are compared."""
    name = unicodedata.normalize("NFKC", name).strip().strip("\"'").lower()
    if "%2f" in name or "%3a" in name:
        name = unquote(name)
    for prefix in ("sha1:", "sha256:"):
        name = name.removeprefix(prefix)
    if host := _HOST.match(name):
        name = re.sub(r"[?#].*", "", unquote(name[host.end() :])).rstrip("/")
        if host[1].startswith("raw."):  # owner/name/branch/path
            parts = name.removeprefix("/").replace("/refs/heads/", "/").split("/", 3)
            name = f"{'/'.join(parts[:2])}:{parts[3]}" if len(parts) == 4 else "/".join(parts[:2])
        elif page := _PAGE.fullmatch(name):
            # A page of a folder ends in no file's name.
            name = f"{page[1]}:{page[2]}" if page[2] else page[1]
            if page[2] and "/tree/" in host.string:
                name += "/"
        elif page := _OTHER_PAGE.fullmatch(name):
            name = page[1]
        elif name and "/" not in name:
            name += "/*"
    elif short := _SHORT_HOST.match(name):
        name = name[short.end() :]
    repo, colon, path = name.partition(":")
    repo = repo.strip().removeprefix("/").rstrip("/").removesuffix(".git")
    return f"{repo}{colon}{_plain_path(path)}"


def _plain_path(path: str) -> str:
    path = path.strip().replace("\\", "/").lower()
    return path.removeprefix("./").removeprefix("/")


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


def purged_names(run: Store) -> frozenset[str]:
    """What was purged from a run, whose folder `run` is: later stages leave it out as well."""
    records = [stored_record(run, f"{PURGES}/{name}") for name in run.list(PURGES)]
    return frozenset(plain_name(name) for record in records for name in record["names"])


@lru_cache(maxsize=4)
def _read(path: str, _size: int, _mtime_ns: int) -> OptOutList:
    try:
        entries = read_entries(input_file(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return OptOutList(frozenset(map(plain_name, entries)))


def _unreadable(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"corpus.filters.opt_out_path={path!r} cannot be read ({error}).",
        "Name a UTF-8 text file with one repository or blob id per line; in a cluster it must "
        "lie on storage that every node sees.",
    )
