"""Which files a setting names: the one file, or those in a folder, at a path or a URI.

A folder is read below, without hidden files and folders, `__pycache__` and what links to folders
lead to. Files in a format that is not read are told by name: nothing is left out without a word.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from codepmp_ray.errors import InputError
from codepmp_ray.storage.inputs import (
    InputFile,
    InputFolder,
    Listed,
    first_remote,
    input_file,
    list_remote,
    open_binary,
)
from codepmp_ray.storage.uris import is_uri, strip_file_scheme

Format = Literal["lines", "parquet"]
# Ends of names. `lines` are JSON lines, or one JSON array, and may be compressed.
_ENDS: dict[Format, tuple[str, ...]] = {
    "lines": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
FORMATS = f"JSON lines ({', '.join(_ENDS['lines'])}; also {', '.join(COMPRESSED)}) or Parquet"
_MAX_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """The files of a setting that are read, sorted by name; `ignored` are the names of the others.

    Names are relative to `root`. `version` of a local file is its time of change in ns.
    """

    root: InputFolder
    files: list[Listed]
    ignored: list[str]


def format_of(name: str) -> Format | None:
    """How a file of this name is read; None for a name that says nothing."""
    lower = name.lower()
    if lower.endswith(_ENDS["parquet"]):
        return "parquet"
    return "lines" if lower.removesuffix(_compression(lower)).endswith(_ENDS["lines"]) else None


def is_compressed(name: str) -> bool:
    return bool(_compression(name.lower()))


def list_files(
    setting: str,
    location: str,
    is_wanted: Callable[[str], bool] = lambda name: format_of(name) is not None,
    skipped: frozenset[str] = frozenset(),
    run_dir: Path | None = None,
) -> Listing:
    """The files of `location`; one that is named itself is wanted whatever it is called.

    Args:
        setting: what names the location, for messages.
        skipped: names of folders that are no part of it; nor is `run_dir`.

    Raises InputError when it does not exist or cannot be listed in full, and StorageError when its
    store fails.
    """
    if is_uri(location):
        root, listed = list_remote(location)
        if not listed:
            raise InputError(f"{setting}={location}: nothing is there.", "Correct the URI.")
        is_alone = [str(root / file.name) for file in listed] == [location.rstrip("/")]
        found = [file for file in listed if is_alone or not _is_hidden(file.name)]
        files = [file for file in found if is_alone or is_wanted(file.name)]
        ignored = sorted({file.name for file in found} - {file.name for file in files})
        return Listing(root, sorted(files, key=lambda file: file.name), ignored)
    path = existing_path(setting, location)
    if not path.is_dir():
        return Listing(path.parent, [_stat(path.parent, path.name)], [])
    names = sorted(_walk(setting, path, skipped, run_dir), key=os.fsencode)
    wanted = [name for name in names if is_wanted(name)]
    files = [_stat(path, name) for name in wanted]
    return Listing(path, files, sorted({*names} - {*wanted}, key=os.fsencode))


def require_first_file(setting: str, location: str) -> None:
    """Read a byte of the first file that is found at `location`; nothing is listed in full.

    Raises InputError where there is none or it cannot be read, and StorageError when a store fails.
    """
    file: InputFile | None
    if is_uri(location):
        file = first_remote(location)
    else:
        path = existing_path(setting, location)
        name = next(_walk(setting, path, frozenset(), None), None) if path.is_dir() else ""
        file = None if name is None else path / name
    if file is None:
        raise InputError(f"{setting}={location}: nothing is there.", "Correct it.")
    try:
        with open_binary(file) as handle:
            handle.read(1)
    except OSError as error:
        raise InputError(
            f"{setting}={location}: {file} cannot be read on {platform.node()}: {error.strerror}.",
            "Make it readable for the user that jobs run as.",
        ) from error


def data_files(setting: str, location: str) -> list[InputFile]:
    """The files of rows at `location`. Raises as `list_rows`."""
    listing = list_rows(setting, location)
    return [input_file(str(listing.root / file.name)) for file in listing.files]


def list_rows(setting: str, location: str) -> Listing:
    """The files of rows at `location`; the others of its folder are told.

    Raises as `list_files`, and InputError where none is one, or the rows are in files that are not
    read.
    """
    listing = list_files(setting, location)
    arrow = [name for name in listing.ignored if name.endswith(".arrow")]
    if arrow:
        raise InputError(
            f"{setting}={location} holds Arrow files, as save_to_disk writes them: {named(arrow)}.",
            "Write it as Parquet: datasets.load_from_disk(...).to_parquet(...).",
        )
    if not listing.files:
        raise InputError(
            f"{setting}={location} holds no file of {FORMATS}; it holds "
            f"{named(listing.ignored) or 'nothing that is not hidden'}.",
        )
    tell_ignored(setting, location, listing)
    return listing


def tell_ignored(setting: str, location: str, listing: Listing) -> None:
    """Says once, on standard error, which files are not read."""
    if listing.ignored:
        num = len(listing.files) + len(listing.ignored)
        _tell(
            f"{setting}={location}: {len(listing.ignored):,} of {num:,} files are not read: "
            f"{named(listing.ignored)}."
        )


def existing_path(setting: str, location: str) -> Path:
    """What is at a path of this machine. Raises InputError where nothing is."""
    path = local_path(location)
    if path.exists():
        return path
    raise InputError(
        f"{setting}={location} does not exist on {platform.node()} ({path}).",
        "Correct the path; in a cluster it must lie on storage that every node sees.",
    )


def local_path(location: str) -> Path:
    return Path(strip_file_scheme(location)).expanduser().absolute()


@cache
def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def named(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    shown = ", ".join(names[:_MAX_NAMED])
    more = len(names) - _MAX_NAMED
    text = f"{shown} and {more:,} more" if more > 0 else shown
    return text.encode("utf-8", "backslashreplace").decode()


def _compression(lower: str) -> str:
    return next((end for end in COMPRESSED if lower.endswith(end)), "")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))


def _walk(setting: str, root: Path, skipped: frozenset[str], run_dir: Path | None) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise InputError(
            f"The folder {error.filename} of {setting} cannot be listed: {error.strerror}.",
            "Make it readable or take it out of the source.",
        ) from error

    for folder, subfolders, entries in os.walk(root, onerror=fail):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in skipped and not _is_hidden(name) and Path(folder, name) != run_dir
        ]
        for name in entries:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()


def _stat(root: Path, name: str) -> Listed:
    try:
        info = os.stat(root / name)
    except OSError:
        # A dangling link, say: it stays in the listing and is rejected with its reason when read.
        return Listed(name, 0, 0)
    return Listed(name, info.st_size, info.st_mtime_ns)
