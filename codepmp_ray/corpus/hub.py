"""Data sets of the Hugging Face hub as files at URIs, pinned to one commit.

The `datasets` library resolves the repository, the subset and the split to data files; these are
read in place through `hf://`, by row group, like any other remote Parquet. HF_TOKEN and HF_ENDPOINT
are honoured by the libraries themselves.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.io.listing import format_of
from codepmp_ray.storage.inputs import InputFolder, Listed, RemoteFolder
from codepmp_ray.storage.uris import strip_file_scheme

_PINNED = re.compile(r"^(hf://datasets/[^@]+@([0-9a-f]{40}))/(.+)$")


def list_data_set(source: SourceConfig, recorded: str = "") -> tuple[InputFolder, list[Listed]]:
    """Where the files of `source` lie, and the files; the file "" is a data set on disk.

    `recorded` is the root of an earlier listing, whose commit is used again. Raises InputError when
    the hub does not have it, and ConfigError for a split or a format that cannot be read.
    """
    folder = Path(strip_file_scheme(source.path or "")).expanduser()
    if folder.is_dir():
        return _saved(folder.absolute(), source)
    revision = recorded.rpartition("@")[2] if recorded else source.revision
    files = [str(url) for url in _data_files(source, revision)]
    found = [_PINNED.match(url) for url in files]
    if not all(found) or not found:
        raise ConfigError(
            f"corpus.source.path={source.path!r}: its files are not read from a commit of the hub "
            f"({files[:1]}).",
            "Name a data set of the hub, or a folder that save_to_disk wrote.",
        )
    matches = [match for match in found if match]
    if odd := [match[3] for match in matches if format_of(match[3]) is None]:
        raise ConfigError(
            f"corpus.source.path={source.path!r}: {odd[0]} is neither Parquet nor JSON lines.",
            "Set corpus.source.revision=refs/convert/parquet, where the hub keeps a Parquet copy.",
        )
    # The commit says what the content is; sizes are not asked for.
    listed = [Listed(match[3], 0, 0) for match in matches]
    return RemoteFolder(matches[0][1]), sorted(listed, key=lambda file: file.name)


def _saved(folder: Path, source: SourceConfig) -> tuple[InputFolder, list[Listed]]:
    from codepmp_ray.corpus.arrow_rows import load_rows
    from codepmp_ray.io.parquet_rows import UnreadableRow

    try:
        data_set = load_rows(str(folder), source.split)
    except UnreadableRow as error:
        raise InputError(
            f"corpus.source.path={source.path!r} holds {error}.",
            "Use source.kind parquet or jsonl for a folder of such files.",
        ) from error
    print_ = hashlib.sha256(str(data_set._fingerprint).encode()).digest()[:7]
    return folder, [Listed("", len(data_set), int.from_bytes(print_, "big"))]


def _data_files(source: SourceConfig, revision: str | None) -> list[Any]:
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(source.path or "", source.subset, revision=revision)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"corpus.source.path={source.path!r}: the hub's data set cannot be resolved "
            f"({type(error).__name__}: {text}).",
            "Check name, subset, revision and, for a gated data set, HF_TOKEN; without the hub, "
            "name a folder that save_to_disk wrote.",
        ) from error
    files = builder.config.data_files or {}
    if source.split not in files:
        known = ", ".join(map(str, files)) or "none that is made of files"
        raise ConfigError(
            f"corpus.source.split={source.split!r}: {source.path} has {known}.",
            "Name one of these.",
        )
    return list(files[source.split])
