"""Numbered rows of a source: files at a path or a URI, or a set on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.io.rows import read_rows
from codepmp_ray.preference.sources.rows import Numbered, Reject
from codepmp_ray.reject_reasons import RejectReason


def read_source(config: DataSourceConfig) -> Iterator[Numbered]:
    """All rows, numbered from 0 over all files. Raises InputError when they cannot be read."""
    if config.hub_set:
        yield from enumerate(_hub_rows(config))
        return
    yield from numbered(f"the set {config.label!r}: path", config.path or "")


def numbered(setting: str, location: str) -> Iterator[Numbered]:
    """`io.rows.read_rows` with rows that cannot be read as rejects."""
    for number, row in read_rows(setting, location):
        if isinstance(row, UnreadableRow):
            yield Reject(number, RejectReason.UNREADABLE, str(row))
        else:
            yield number, row


def _hub_rows(config: DataSourceConfig) -> Iterator[dict[str, Any]]:
    import datasets

    # HH-RLHF's subsets are folders of its repository, those of other sets configurations.
    kind = "data_dir" if config.kind == "hh_rlhf" else "name"
    options = {kind: config.subset} if config.subset else {}
    try:
        # Its overloads do not know of options that are given by name.
        found = cast(Any, datasets.load_dataset)(
            config.hub_set, split=config.split, revision=config.revision, **options
        )
    except Exception as error:
        raise InputError(
            f"The set {config.label!r}: the hub set {config.hub_set} (split {config.split}) cannot "
            f"be loaded: {' '.join(str(error).split())[:300]}",
            "Check hub_id, subset, split and the network, or download the set and give its path.",
        ) from error
    yield from found
