"""Numbered rows of a source (files at a path or a URI, or a set on the Hugging Face hub), and the
pairs that its kind makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.parquet_rows import UnreadableRow
from codepmp_ray.io.rows import read_rows
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.columns import ColumnUse
from codepmp_ray.preference.sources.rows import Built, Numbered, Reject
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


def column_use(source: DataSourceConfig, template: str | None = None) -> ColumnUse:
    """The account of a set's columns, to be given to `pairs_of` or to read rows with."""
    return ColumnUse(source, SOURCES[source.kind].columns, template)


def pairs_of(source: DataSourceConfig, use: ColumnUse | None = None) -> Iterator[Built]:
    """Pairs and rejects, up to `max_rows` pairs.

    Raises InputError for a set that cannot be read, lacks columns, or whose prompts would be
    guessed.
    """
    kind = SOURCES[source.kind]
    use = use or column_use(source)
    num_pairs = 0
    for built in kind.build(use.rows(read_source(source)), source):
        yield built
        num_pairs += not isinstance(built, Reject)
        if num_pairs == source.max_rows:
            break
    use.finish()
