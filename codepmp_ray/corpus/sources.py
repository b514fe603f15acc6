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

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.corpus.filters.opt_out import load_opt_out
from codepmp_ray.corpus.languages import check_languages
from codepmp_ray.corpus.licenses import license_refusal, parse_licenses
from codepmp_ray.errors import ConfigError, InputError

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


@dataclass(frozen=True)
class SourceFile:
    """One file; `name` is its path relative to the source's root, with "/" between parts."""

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
    if refusal:
        name = "stdlib" if source.kind == "stdlib" else source.path
        raise ConfigError(
            f"corpus.source {name}: {refusal}.",
            "Set corpus.source.license to the SPDX id of its files and allow that id in "
            "corpus.allowed_licenses.",
        )


def source_licenses(source: SourceConfig) -> tuple[str, ...]:
    """The licence that holds for a file which states none itself."""
    return (STDLIB_LICENSE,) if source.kind == "stdlib" else parse_licenses(source.license)


def source_root(source: SourceConfig) -> Path:
    """Folder below which the source's files lie, on the machine that asks.

    Raises InputError when it is missing.
    """
    if source.kind == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    path = Path(source.path or "").expanduser().absolute()
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


def source_repo(source: SourceConfig) -> str | None:
    """Repository of a file which states none itself."""
    if source.repo or source.kind not in ("stdlib", "folder"):
        return source.repo
    if source.kind == "stdlib":
        return f"python/cpython@{platform.python_version()}"
    return source_root(source).name


def list_files(source: SourceConfig, run_dir: str | Path | None = None) -> list[SourceFile]:
    """Every file of the source, sorted by path.

    Raises InputError when the source is missing, empty or cannot be listed in full.
    """
    root = source_root(source)
    if source.kind in ("parquet", "jsonl") and Path(source.path or "").expanduser().is_file():
        names = [Path(source.path or "").name]
    else:
        names = _walk(root, source.kind, Path(run_dir).absolute() if run_dir else None)
    if not names:
        suffixes = " or ".join(f"*{suffix}" for suffix in _SUFFIXES[source.kind])
        raise InputError(
            f"corpus.source {root} ({source.kind}) holds no {suffixes} file.",
            "Hidden files are not counted. Point corpus.source.path at the files.",
        )
    return [_stat(root, name) for name in sorted(names, key=os.fsencode)]


def listing_digest(files: list[SourceFile]) -> str:
    """32 hex digits that change when a file is added, removed, resized or modified."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + f"\0{file.size}\0{file.mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


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
