"""Listing a source: which files it has, in which order, and whether they changed since.

The listing is sorted by path. Hidden files and folders and `__pycache__` are no part of a source,
links to folders are not followed, and the run directory is left out when it lies inside.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from functools import partial
from pathlib import Path

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.corpus.filters.opt_out import load_opt_out
from codepmp_ray.corpus.languages import check_languages
from codepmp_ray.corpus.licenses import license_files, license_refusal, parse_licenses
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.io import listing
from codepmp_ray.storage.inputs import InputFolder, Listed, RemoteFolder
from codepmp_ray.storage.uris import is_uri

_SETTING = "corpus.source.path"
_KINDS = {"lines": "jsonl", "parquet": "parquet"}  # format -> the kind of source
STDLIB_LICENSE = "PSF-2.0"
# Not code to learn from: installed packages, test suites, and a module that only holds text.
_STDLIB_SKIPPED = frozenset(
    {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "lib2to3",
        "pydoc_data",
        "lib-dynload",
        "_bundled",
    }
)


def check_corpus_config(corpus: CorpusConfig) -> None:
    """Raise ConfigError for settings under which every file would be rejected or none read."""
    check_languages(corpus.languages)
    load_opt_out(corpus.filters.opt_out_path)
    load_evaluation_index(corpus.decontamination)
    source = corpus.source
    if source.kind not in ("stdlib", "folder"):
        return
    refusal = license_refusal(source_licenses(source), corpus.allowed_licenses)
    says_it_itself = source.kind == "folder" and not (source.license or is_uri(source.path or ""))
    if refusal and not (says_it_itself and license_files(listing.local_path(source.path or ""))):
        name = "stdlib" if source.kind == "stdlib" else source.path
        raise ConfigError(
            f"corpus.source {name}: {refusal}.",
            "Set corpus.source.license to the SPDX expression of its files and allow that in "
            "corpus.allowed_licenses; or leave it out where the folder holds a LICENSE file.",
        )


def source_licenses(source: SourceConfig) -> tuple[str, ...]:
    """The licence that holds for a file which states none itself."""
    return (STDLIB_LICENSE,) if source.kind == "stdlib" else parse_licenses(source.license)


def input_root(source: SourceConfig, recorded: str) -> InputFolder:
    """Where the tasks of a planned corpus read: at the URI that its plan recorded, if it did."""
    return RemoteFolder(recorded) if recorded else source_root(source)


def source_root(source: SourceConfig) -> Path:
    """Folder below which the source's files lie, on the machine that asks.

    Raises InputError when it is missing.
    """
    if source.kind == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    path = listing.existing_path(_SETTING, source.path or "")
    if path.is_dir():
        return path
    if source.kind == "folder":
        raise InputError(
            f"{_SETTING}={source.path!r} is a file, but corpus.source.kind is folder.",
            "Name the folder that holds it.",
        )
    return path.parent


def source_repo(source: SourceConfig, root: InputFolder) -> str | None:
    """Repository of a file which states none itself."""
    if source.repo or source.kind not in ("stdlib", "folder"):
        return source.repo
    if source.kind == "stdlib":
        return f"python/cpython@{platform.python_version()}"
    return root.name


def list_files(source: SourceConfig, run_dir: str | Path | None = None) -> list[Listed]:
    """As `list_source`, the files only."""
    return list_source(source, run_dir)[1]


def list_source(
    source: SourceConfig, run_dir: str | Path | None = None, recorded: str = ""
) -> tuple[InputFolder, list[Listed]]:
    """The source's root and every file of it, sorted by path.

    `recorded` is the root that an earlier listing gave: a data set of the hub is then listed at the
    commit which that names. Raises InputError when the source is missing, empty or cannot be listed
    in full, and StorageError when its store fails.
    """
    if source.kind == "huggingface":
        from codepmp_ray.corpus.hub import list_data_set

        return list_data_set(source, recorded)
    location = source.path or ""
    if not is_uri(location):
        root = source_root(source)
        location = str(root) if source.kind == "stdlib" else location
    found = listing.list_files(
        _SETTING,
        location,
        partial(_is_wanted, source),
        _STDLIB_SKIPPED if source.kind == "stdlib" else frozenset(),
        Path(run_dir).absolute() if run_dir else None,
    )
    if not found.files:
        raise InputError(
            f"corpus.source {found.root} ({source.kind}) holds no file of that kind; it holds "
            f"{listing.named(found.ignored) or 'nothing'}.",
            "Hidden files are not counted. Point corpus.source.path at the files.",
        )
    if source.kind != "stdlib":
        listing.tell_ignored(_SETTING, location, found)
    return found.root, found.files


def file_format(source: SourceConfig, name: str) -> str:
    """How a file is read: as "parquet", "jsonl", "rows" of a saved data set, or a whole "file"."""
    if source.kind in ("stdlib", "folder"):
        return "file"
    if not name:
        return "rows"
    return _KINDS.get(listing.format_of(name) or "", source.kind)


def listing_digest(files: list[Listed]) -> str:
    """32 hex digits that change when a file is added, removed, resized or modified."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + f"\0{file.size}\0{file.version}\n".encode())
    return digest.hexdigest()[:32]


def _is_wanted(source: SourceConfig, name: str) -> bool:
    if source.kind == "stdlib":
        return name.endswith(".py")
    return source.kind == "folder" or _KINDS.get(listing.format_of(name) or "") == source.kind
