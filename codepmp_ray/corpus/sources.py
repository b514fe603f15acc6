"""Listing a source: which files it has, in which order, and whether they changed since.

The listing is sorted by path. Hidden files and folders and `__pycache__` are no part of a source,
links to folders are not followed, and the run directory is left out when it lies inside.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.corpus.filters.opt_out import load_opt_out
from codepmp_ray.corpus.languages import check_languages
from codepmp_ray.corpus.licenses import license_files, license_refusal, parse_licenses
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.storage.inputs import InputFolder, RemoteFolder, list_remote
from codepmp_ray.storage.uris import is_uri, strip_file_scheme

T = TypeVar("T")
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
_SUFFIXES = {
    "stdlib": (".py",),
    "folder": ("",),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file; `name` is its path relative to the source's root, with "/" between parts.

    `mtime_ns` is, for a file at a URI, the number that changes with its content.
    """

    name: str
    size: int
    mtime_ns: int


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
    if refusal and not (says_it_itself and license_files(_local_path(source))):
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
    path = _local_path(source)
    if not path.exists():
        raise InputError(
            f"corpus.source.path={source.path!r} does not exist on {platform.node()} ({path}).",
            "Correct the path; in a cluster it must lie on storage that every node sees.",
        )
    if path.is_dir():
        return path
    if source.kind == "folder":
        raise InputError(
            f"corpus.source.path={source.path!r} is a file, but corpus.source.kind is folder.",
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


def list_files(source: SourceConfig, run_dir: str | Path | None = None) -> list[SourceFile]:
    """As `list_source`, the files only."""
    return list_source(source, run_dir)[1]


def list_source(
    source: SourceConfig, run_dir: str | Path | None = None, recorded: str = ""
) -> tuple[InputFolder, list[SourceFile]]:
    """The source's root and every file of it, sorted by path.

    `recorded` is the root that an earlier listing gave: a data set of the hub is then listed at the
    commit which that names. Raises InputError when the source is missing, empty or cannot be listed
    in full, and StorageError when its store fails.
    """
    if source.kind == "huggingface":
        from codepmp_ray.corpus.hub import list_data_set

        root, listed = list_data_set(source, recorded)
        return root, [SourceFile(file.name, file.size, file.version) for file in listed]
    if is_uri(source.path or ""):
        root, listed = list_remote(source.path or "")
        files = [
            SourceFile(file.name, file.size, file.version)
            for file in listed
            if file.name.endswith(_SUFFIXES[source.kind]) and not _is_hidden(file.name)
        ]
        return root, sorted(_not_empty(files, root, source.kind), key=lambda file: file.name)
    root = source_root(source)
    if source.kind in ("parquet", "jsonl") and _local_path(source).is_file():
        names = [_local_path(source).name]
    else:
        names = _walk(root, source.kind, Path(run_dir).absolute() if run_dir else None)
    names = sorted(_not_empty(names, root, source.kind), key=os.fsencode)
    return root, [_stat(root, name) for name in names]


def file_format(source: SourceConfig, name: str) -> str:
    """How a file is read: as "parquet", "jsonl", "rows" of a saved data set, or a whole "file"."""
    if source.kind in ("stdlib", "folder"):
        return "file"
    if source.kind != "huggingface":
        return source.kind
    return "parquet" if name.endswith(".parquet") else "jsonl" if name else "rows"


def listing_digest(files: list[SourceFile]) -> str:
    """32 hex digits that change when a file is added, removed, resized or modified."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + f"\0{file.size}\0{file.mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _not_empty(found: list[T], root: InputFolder, kind: str) -> list[T]:
    if not found:
        suffixes = " or ".join(f"*{suffix}" for suffix in _SUFFIXES[kind])
        raise InputError(
            f"corpus.source {root} ({kind}) holds no {suffixes} file.",
            "Hidden files are not counted. Point corpus.source.path at the files.",
        )
    return found


def _local_path(source: SourceConfig) -> Path:
    return Path(strip_file_scheme(source.path or "")).expanduser().absolute()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))


def _walk(root: Path, kind: str, run_dir: Path | None) -> list[str]:
    skipped = _STDLIB_SKIPPED if kind == "stdlib" else frozenset()

    def fail(error: OSError) -> None:
        raise InputError(
            f"The folder {error.filename} of corpus.source cannot be listed: {error.strerror}.",
            "Make it readable or take it out of the source.",
        ) from error

    names = []
    for folder, subfolders, entries in os.walk(root, onerror=fail):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in skipped
            and name != "__pycache__"
            and not name.startswith(".")
            and Path(folder, name) != run_dir
        ]
        names += [
            Path(folder, name).relative_to(root).as_posix()
            for name in entries
            if not name.startswith(".") and name.endswith(_SUFFIXES[kind])
        ]
    return names


def _stat(root: Path, name: str) -> SourceFile:
    try:
        info = os.stat(root / name)
    except OSError:
        # A dangling link, say: it stays in the listing and is rejected with its reason when read.
        return SourceFile(name, 0, 0)
    return SourceFile(name, info.st_size, info.st_mtime_ns)
