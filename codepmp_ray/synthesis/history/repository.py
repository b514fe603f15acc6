"""Reading the objects of a git repository that nobody vouches for.

Its configuration can name programs (hooks, filters, textconv, fetches of missing objects). So git
is started in an empty folder of our own, with the repository's objects as the place to read them
from: nothing else of it is read but the files that say which commit a name means. Git is told
commands and object names as arguments, never through a shell.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codepmp_ray.errors import InputError

_OID = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w+-][\w.+-]*(?:/[\w+-][\w.+-]*)*")
_PLAIN_FILES = ("100644", "100755")  # neither links nor other repositories


@dataclass(frozen=True)
class Commit:
    """`author` is "name <address>"; the message is as it was written."""

    oid: str
    parents: tuple[str, ...]
    author: str
    message: str


@dataclass(frozen=True)
class Change:
    """A plain file that was changed in place; blobs are named by git's ids."""

    path: str
    before: str
    after: str


@contextmanager
def open_repository(folder: Path) -> Iterator[Repository]:
    """The repository whose checkout, worktree or bare folder this is.

    Raises InputError when it is none, or when there is no git.
    """
    own, common = _git_folders(folder)
    if shutil.which("git") is None:
        raise InputError("There is no program git.", "Install git on every node.")
    with tempfile.TemporaryDirectory(prefix="codepmp-git-") as empty:
        place = Path(empty)
        for name in ("objects", "refs"):
            (place / name).mkdir()
        (place / "HEAD").write_text("ref: refs/heads/none\n")
        if (common / "shallow").is_file():  # where the history of a shallow clone ends
            shutil.copyfile(common / "shallow", place / "shallow")
        yield Repository(folder, own, common, place)


@dataclass(frozen=True)
class Repository:
    """`own` is the folder of git's files for this checkout, `common` that of all worktrees, `place`
    where git is started."""

    folder: Path
    own: Path
    common: Path
    place: Path

    def resolve(self, revision: str) -> str:
        """The object that a branch, a tag, HEAD or 40 hex digits name. Raises InputError."""
        for _ in range(5):  # a name of a name of ...
            if _OID.fullmatch(revision):
                return revision
            revision = self._meaning(revision).removeprefix("ref: ")
        raise self._unknown(revision)

    def commits(self, oid: str, at_most: int | None) -> list[str]:
        """The commits from which `oid` was made, itself included, the newest first."""
        limit = [] if at_most is None else [f"--max-count={at_most}"]
        return self._git("rev-list", *limit, oid, "--").decode().split()

    def read_commits(self, oids: list[str]) -> list[Commit]:
        return [_commit(oid, data) for oid, data in self.read(oids)]

    def changes(self, commits: Iterable[Commit]) -> dict[str, list[Change]]:
        """Commit -> the plain files that it changes in place, of commits with one parent."""
        asked = "".join(f"{c.oid} {c.parents[0]}\n" for c in commits)
        options = ("-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff")
        parts = iter(self._git("diff-tree", "--stdin", *options, asked=asked).split(b"\0"))
        found: dict[str, list[Change]] = {}
        oid = ""
        for part in parts:
            text = part.decode("ascii", "replace").strip()
            if not text.startswith(":"):
                oid = text or oid
                continue
            old_mode, new_mode, before, after, status = text[1:].split(" ")
            path = os.fsdecode(next(parts))
            if status == "M" and {old_mode, new_mode} <= {*_PLAIN_FILES} and before != after:
                found.setdefault(oid, []).append(Change(path, before, after))
        return found

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """Bytes of each object. Those that are missing (a partial clone) are left out."""
        asked = "\n".join(dict.fromkeys(oids))
        lines = self._git("cat-file", "--batch-check", asked=asked).decode().splitlines()
        return {oid: int(size) for oid, _, size in (line.split(" ") for line in lines
                                                    if not line.endswith(" missing"))}  # fmt: skip

    def read(self, oids: list[str]) -> Iterator[tuple[str, bytes]]:
        """(id, content) of each object. Raises InputError for one that is missing."""
        data = self._git("cat-file", "--batch", asked="\n".join(oids))
        start = 0
        for oid in oids:
            head, _, _ = data[start : start + 200].partition(b"\n")
            if not head.startswith(oid.encode()) or head.endswith(b" missing"):
                told = head.decode("utf-8", "replace")
                raise InputError(f"{self.folder}: git has no object {oid} ({told}).")
            start += len(head) + 1
            size = int(head.split(b" ")[2])
            yield oid, data[start : start + size]
            start += size + 1

    def _git(self, *arguments: str, asked: str = "") -> bytes:
        nothing = os.devnull
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.place),
            "LC_ALL": "C",
            "GIT_DIR": str(self.place),
            "GIT_OBJECT_DIRECTORY": str(self.common / "objects"),
            "GIT_CONFIG_GLOBAL": nothing,
            "GIT_CONFIG_SYSTEM": nothing,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
        }
        done = subprocess.run(
            ["git", *arguments],
            input=asked.encode(),
            capture_output=True,
            cwd=self.place,
            env=environment,
        )
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            raise InputError(f"{self.folder}: git {arguments[0]} failed ({told}).")
        return done.stdout

    def _meaning(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise self._unknown(name)
        tried = [name, *(f"refs/{kind}/{name}" for kind in ("heads", "tags", "remotes/origin"))]
        packed = self.common / "packed-refs"
        lines = packed.read_text("utf-8", "replace").splitlines() if packed.is_file() else []
        listed = {ref: oid for oid, _, ref in (line.partition(" ") for line in lines)}
        for ref in tried:
            for folder in (self.own, self.common):
                if (ref == "HEAD" or ref.startswith("refs/")) and (folder / ref).is_file():
                    return (folder / ref).read_text("utf-8", "replace").strip()
            if ref in listed:
                return listed[ref]
        raise self._unknown(name)

    def _unknown(self, name: str) -> InputError:
        return InputError(
            f"synthesis.commits.revision: {self.folder} has no branch, tag or commit {name!r}.",
            "Name one, or the 40 digits of a commit.",
        )


def _git_folders(folder: Path) -> tuple[Path, Path]:
    """(files of this checkout, files of all of them)."""
    own = folder / ".git"
    if own.is_file():  # of a worktree or a submodule
        own = folder / own.read_text("utf-8", "replace").strip().removeprefix("gitdir: ")
    elif not own.is_dir():
        own = folder
    shared = own / "commondir"
    common = own / shared.read_text("utf-8", "replace").strip() if shared.is_file() else own
    if not (common / "objects").is_dir() or not (own / "HEAD").is_file():
        raise InputError(
            f"corpus.source.path={folder} is no git repository.",
            "synthesis.construction=commits reads a history: name a checkout or a bare repository.",
        )
    return own.absolute(), common.absolute()


def _commit(oid: str, data: bytes) -> Commit:
    head, _, message = data.partition(b"\n\n")
    fields = [line.partition(b" ")[::2] for line in head.split(b"\n")]
    parents = tuple(value.decode() for name, value in fields if name == b"parent")
    authors = [value.decode("utf-8", "replace") for name, value in fields if name == b"author"]
    author = authors[0].rpartition(">")[0] + ">" if authors else ""
    encoding = next((value.decode("ascii", "replace") for name, value in fields
                     if name == b"encoding"), "utf-8")  # fmt: skip
    try:
        text = message.decode(encoding, "replace")
    except LookupError:
        text = message.decode("utf-8", "replace")
    return Commit(oid, parents, author, text)
